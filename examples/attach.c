// SPDX-License-Identifier: MIT
/*
 * Maps a region by its name through /dev/rmem and uses it with plain loads and
 * stores.
 *
 *   attach NAME                how the region begins
 *   attach NAME OFFSET TEXT    stores TEXT at OFFSET; returns when it is durable
 *                              on the machine that has the bytes
 *
 * The region's owner, group and mode decide who may. /dev/rmem-NAME is the same
 * without the ioctl: examples/read_region.py uses that.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/rmem.h>

int main(int argc, char **argv)
{
	struct rmem_ioc_attach attach = { .size = sizeof(attach) };
	int writing = argc == 4, fd = open("/dev/rmem", writing ? O_RDWR : O_RDONLY);
	size_t size;
	char *bytes;

	if ((argc != 2 && !writing) || strlen(argv[1]) >= sizeof(attach.name))
		errx(2, "usage: attach NAME [OFFSET TEXT]");
	memcpy(attach.name, argv[1], strlen(argv[1]));
	if (fd < 0)
		err(1, "/dev/rmem");
	if (ioctl(fd, RMEM_IOC_ATTACH, &attach))
		err(1, "region %s", argv[1]);

	size = lseek(fd, 0, SEEK_END);
	bytes = mmap(NULL, size, PROT_READ | (writing ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (bytes == MAP_FAILED)
		err(1, "mmap");
	if (writing) {
		size_t offset = strtoull(argv[2], NULL, 0), length = strlen(argv[3]);

		if (offset > size || length > size - offset)
			errx(2, "the region has only %zu bytes", size);
		memcpy(bytes + offset, argv[3], length);
		if (msync(bytes, size, MS_SYNC))
			err(1, "msync");
	}
	printf("%s: %zu bytes, beginning with '%.15s'\n", argv[1], size, bytes);
	return 0;
}
