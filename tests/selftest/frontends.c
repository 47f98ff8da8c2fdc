// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/rmem, a region's own node and its rmemfs file are one page cache; and
 * what each answers to the calls that programs make of a file.
 */
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/loop.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (1 << 20)
#define ODD_SIZE (SIZE + CHUNK + 1234)

static unsigned char buf[2 * SIZE] __aligned(4096);

static const struct region_conf plain = { .size = SIZE, .order = -1 };
static const struct region_conf odd = { .size = ODD_SIZE, .order = -1 };

#define for_each_frontend(fe) \
	for (fe = 0; fe < FE_COUNT && (context("%s", frontend_names[fe]), 1); fe++)

static void start(struct fix *f, const struct region_conf *c)
{
	ASSERT_RET(fix_start(f, c), 0);
	ASSERT(rmemfs_mount());
}

static void stop(struct fix *f)
{
	context(" ");
	EXPECT_RET(fix_stop(f), 0);
}

static unsigned char *map_fd(int fd, size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	ASSERT(p != MAP_FAILED);
	return p;
}

TEST(same_bytes)
{
	unsigned char *map[FE_COUNT];
	int fd[FE_COUNT];
	struct fix f;
	int fe, other;

	start(&f, &plain);
	for_each_frontend(fe) {
		fd[fe] = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		map[fe] = map_fd(fd[fe], SIZE, PROT_READ | PROT_WRITE);
		EXPECT_EQ(pattern_diff(map[fe], 0, SIZE), -1);
		EXPECT_RET(SYS(pread(fd[fe], buf, SIZE, 0)), SIZE);
		EXPECT_EQ(pattern_diff(buf, 0, SIZE), -1);
	}
	/* Fetched once, for all of them. */
	EXPECT_EQ(MINI_GET(f.m, fetch_bytes), SIZE);
	for_each_frontend(fe) {
		poke(map[fe] + fe, 'A' + fe);
		EXPECT_RET(SYS(pwrite(fd[fe], &(char){ 'a' + fe }, 1, PAGE + fe)), 1);
		for (other = 0; other < FE_COUNT; other++) {
			EXPECT_EQ(peek(map[other] + fe), 'A' + fe);
			EXPECT_EQ(peek(map[other] + PAGE + fe), 'a' + fe);
			EXPECT_RET(SYS(pread(fd[other], buf, 1, fe)), 1);
			EXPECT_EQ(buf[0], 'A' + fe);
		}
		EXPECT_RET(SYS(fsync(fd[fe])), 0);
		EXPECT_EQ(f.store[fe], 'A' + fe);
		EXPECT_EQ(f.store[PAGE + fe], 'a' + fe);
	}
	for_each_frontend(fe) {
		munmap(map[fe], SIZE);
		close(fd[fe]);
	}
	stop(&f);
}

TEST(info)
{
	struct rmem_ioc_info info;
	struct fix f;
	int fe, fd;

	start(&f, &odd);
	for_each_frontend(fe) {
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDONLY));
		EXPECT_RET(region_info(fd, &info), 0);
		EXPECT_EQ(info.region_id, f.id);
		EXPECT_EQ(info.region_flags, 0);
		EXPECT_EQ(info.size_bytes, ODD_SIZE);
		EXPECT_EQ(info.chunk_bytes, CHUNK);
		EXPECT_EQ(info.state, RMEM_STATE_ACTIVE);
		EXPECT_EQ(info.dirty_bytes, 0);
		EXPECT_EQ(info.writeback_bytes, 0);
		EXPECT_STREQ(info.name, f.name);
		close(fd);
	}
	stop(&f);
}

/* pread and pwrite at odd places, against a copy in memory. */
TEST(pread_pwrite)
{
	static const struct { int at, len; } ranges[] = {
		{ 0, 1 }, { 4095, 2 }, { 1, 4095 }, { 8192, 4096 }, { 100, 70000 },
		{ CHUNK - 1, 2 }, { 3 * CHUNK, 2 * CHUNK }, { 5 * CHUNK + 77, 1 },
		{ ODD_SIZE - 1, 1 }, { ODD_SIZE - 5000, 5000 },
	};
	static unsigned char shadow[ODD_SIZE];
	struct fix f;
	int fe, fd;
	size_t i;

	for_each_frontend(fe) {
		start(&f, &odd);
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		pattern_fill(shadow, 0, ODD_SIZE);
		for (i = 0; i < ARRAY_SIZE(ranges); i++) {
			memset(buf, 0, ranges[i].len);
			EXPECT_RET(SYS(pread(fd, buf, ranges[i].len, ranges[i].at)),
				   ranges[i].len);
			EXPECT(!memcmp(buf, shadow + ranges[i].at, ranges[i].len));
			memset(buf, i + 1, ranges[i].len);
			memset(shadow + ranges[i].at, i + 1, ranges[i].len);
			EXPECT_RET(SYS(pwrite(fd, buf, ranges[i].len, ranges[i].at)),
				   ranges[i].len);
		}
		EXPECT(!memcmp(f.map, shadow, ODD_SIZE));
		EXPECT_RET(SYS(fsync(fd)), 0);
		EXPECT(!memcmp(f.store, shadow, ODD_SIZE));
		/* From the start, by the file's own position. */
		EXPECT_RET(SYS(lseek(fd, 0, SEEK_SET)), 0);
		EXPECT_RET(SYS(read(fd, buf, 100)), 100);
		EXPECT_RET(SYS(lseek(fd, 0, SEEK_CUR)), 100);
		close(fd);
		stop(&f);
	}
}

/* The first access to a chunk is a small write: the rest is fetched. */
TEST(pwrite_cold)
{
	struct fix f;
	int fe, fd;

	for_each_frontend(fe) {
		start(&f, &plain);
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		EXPECT_RET(SYS(pwrite(fd, "x", 1, CHUNK + 5000)), 1);
		EXPECT_RET(SYS(fsync(fd)), 0);
		pattern_fill(buf, 0, SIZE);
		buf[CHUNK + 5000] = 'x';
		EXPECT(!memcmp(f.store, buf, SIZE));
		EXPECT(!memcmp(f.map, buf, SIZE));
		close(fd);
		stop(&f);
	}
}

TEST(splice_and_sendfile)
{
	int fe, fd, p[2], tmp;
	struct fix f;
	loff_t at;
	off_t off;
	long n;

	for_each_frontend(fe) {
		start(&f, &plain);
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		ASSERT_RET(SYS(pipe(p)), 0);

		at = CHUNK - PAGE;
		n = ASSERT_OK(SYS(splice(fd, &at, p[1], NULL, 2 * PAGE, 0)));
		EXPECT_RET(SYS(read(p[0], buf, SIZE)), n);
		EXPECT_EQ(pattern_diff(buf, CHUNK - PAGE, n), -1);

		EXPECT_RET(SYS(write(p[1], "spliced", 7)), 7);
		at = 3 * PAGE + 10;
		EXPECT_RET(SYS(splice(p[0], NULL, fd, &at, 7, 0)), 7);
		EXPECT(!memcmp(f.map + 3 * PAGE + 10, "spliced", 7));
		EXPECT_EQ(pattern_diff(f.map + 3 * PAGE, 3 * PAGE, 10), -1);

		tmp = ASSERT_OK(SYS(memfd_create("selftest", 0)));
		for (off = 0; off < SIZE;)
			ASSERT(sendfile(tmp, fd, &off, SIZE - off) > 0);
		EXPECT_RET(SYS(pread(tmp, buf, SIZE, 0)), SIZE);
		EXPECT(!memcmp(buf, f.map, SIZE));

		memset(buf, 's', 10000);
		EXPECT_RET(SYS(pwrite(tmp, buf, 10000, 0)), 10000);
		EXPECT_RET(SYS(lseek(fd, 2 * CHUNK + 1, SEEK_SET)), 2 * CHUNK + 1);
		off = 0;
		EXPECT_RET(SYS(sendfile(fd, tmp, &off, 10000)), 10000);
		EXPECT_EQ(bytes_diff(f.map + 2 * CHUNK + 1, 's', 10000), -1);
		EXPECT_RET(SYS(fsync(fd)), 0);
		EXPECT_EQ(bytes_diff(f.store + 2 * CHUNK + 1, 's', 10000), -1);
		close(tmp);
		close(p[0]);
		close(p[1]);
		close(fd);
		stop(&f);
	}
}

TEST(lseek_answers)
{
	struct fix f;
	int fe, fd;

	start(&f, &odd);
	for_each_frontend(fe) {
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		EXPECT_RET(SYS(lseek(fd, 0, SEEK_END)), ODD_SIZE);
		EXPECT_RET(SYS(lseek(fd, -1, SEEK_END)), ODD_SIZE - 1);
		EXPECT_RET(SYS(lseek(fd, 5, SEEK_SET)), 5);
		EXPECT_RET(SYS(lseek(fd, 5, SEEK_CUR)), 10);
		EXPECT_RET(SYS(lseek(fd, -1, SEEK_SET)), -EINVAL);
		/*
		 * What is not here may be anything: never a hole before the
		 * end, or cp would leave it out.
		 */
		EXPECT_RET(SYS(lseek(fd, 0, SEEK_DATA)), 0);
		EXPECT_RET(SYS(lseek(fd, 5000, SEEK_DATA)), 5000);
		EXPECT_RET(SYS(lseek(fd, 0, SEEK_HOLE)), ODD_SIZE);
		EXPECT_RET(SYS(lseek(fd, ODD_SIZE, SEEK_DATA)), -ENXIO);
		EXPECT_RET(SYS(lseek(fd, ODD_SIZE, SEEK_HOLE)), -ENXIO);
		close(fd);
	}
	stop(&f);
}

TEST(stat_answers)
{
	struct region_conf conf = {
		.size = ODD_SIZE, .order = -1, .uid = 1234, .gid = 2345, .mode = 0640,
	};
	struct stat st;
	struct fix f;

	start(&f, &conf);
	context("file");
	ASSERT_RET(SYS(stat(frontend_path(FE_FILE, f.name), &st)), 0);
	EXPECT_EQ(st.st_mode, S_IFREG | 0640);
	EXPECT_EQ(st.st_size, ODD_SIZE);
	EXPECT_EQ(st.st_uid, 1234);
	EXPECT_EQ(st.st_gid, 2345);
	context("node");
	ASSERT_RET(SYS(stat(frontend_path(FE_NODE, f.name), &st)), 0);
	EXPECT_EQ(st.st_mode, S_IFCHR | 0640);
	EXPECT_EQ(st.st_uid, 1234);
	EXPECT_EQ(st.st_gid, 2345);
	context("device");
	ASSERT_RET(SYS(stat(DEVICE_PATH, &st)), 0);
	EXPECT_EQ(st.st_mode, S_IFCHR | 0666);
	context("control");
	ASSERT_RET(SYS(stat(CONTROL_PATH, &st)), 0);
	EXPECT_EQ(st.st_mode & ~0060, S_IFCHR | 0600);
	EXPECT_EQ(st.st_uid, 0);
	stop(&f);
}

/* Times the name is seen in the listing. */
static int listed(const char *name, unsigned char *type)
{
	DIR *d = opendir(rmemfs_mount());
	struct dirent *e;
	int n = 0;

	ASSERT(d);
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, name))
			continue;
		if (type)
			*type = e->d_type;
		n++;
	}
	closedir(d);
	return n;
}

TEST(rmemfs_directory)
{
	unsigned char type = 0;
	struct stat st, dir;
	char path[200], *p;
	struct fix f;
	int fd;

	start(&f, &plain);
	EXPECT_EQ(listed(f.name, &type), 1);
	EXPECT_EQ(type, DT_REG);
	EXPECT_EQ(listed(".", NULL), 1);
	EXPECT_EQ(listed("..", NULL), 1);
	p = strdup(frontend_path(FE_FILE, f.name));
	ASSERT_RET(SYS(stat(p, &st)), 0);
	ASSERT_RET(SYS(stat(rmemfs_mount(), &dir)), 0);
	EXPECT(S_ISDIR(dir.st_mode));
	EXPECT_EQ(dir.st_mode & 0022, 0);

	/* Names come from regions and from nowhere else. */
	snprintf(path, sizeof(path), "%s/new", rmemfs_mount());
	EXPECT(open(path, O_CREAT | O_RDWR, 0600) < 0);
	EXPECT(mkdir(path, 0700) < 0);
	EXPECT(symlink("x", path) < 0);
	EXPECT(link(p, path) < 0);
	EXPECT(rename(p, path) < 0);
	EXPECT(unlink(p) < 0);
	EXPECT_RET(SYS(access(path, F_OK)), -ENOENT);
	EXPECT_EQ(listed(f.name, NULL), 1);
	/* Creating what is there is opening it. */
	fd = ASSERT_OK(SYS(open(p, O_CREAT | O_RDWR, 0600)));
	EXPECT_RET(SYS(pread(fd, buf, PAGE, 0)), PAGE);
	EXPECT_EQ(pattern_diff(buf, 0, PAGE), -1);
	close(fd);
	free(p);
	stop(&f);
}

/*
 * Permissions
 */

struct user {
	const char *name;
	int uid, gid;
	int read, write;	/* wanted: 0 or -EACCES */
};

static int open_as(void *arg)
{
	const struct user *u = arg;
	int fe, fd;

	ASSERT_RET(SYS(setgroups(0, NULL)), 0);
	ASSERT_RET(SYS(setgid(u->gid)), 0);
	ASSERT_RET(SYS(setuid(u->uid)), 0);
	for (fe = 0; fe < FE_COUNT; fe++) {
		context("%s as %s", frontend_names[fe], u->name);
		fd = frontend_open(fe, "modes", O_RDONLY);
		EXPECT_RET(fd < 0 ? fd : 0, u->read);
		close(fd);
		fd = frontend_open(fe, "modes", O_RDWR);
		EXPECT_RET(fd < 0 ? fd : 0, u->write);
		close(fd);
		fd = frontend_open(fe, "modes", O_WRONLY);
		EXPECT_RET(fd < 0 ? fd : 0, u->write);
		close(fd);
	}
	return 0;
}

TEST(permissions)
{
	struct region_conf conf = {
		.name = "modes", .size = SIZE, .order = -1,
		.uid = 1234, .gid = 2345, .mode = 0640,
	};
	static struct user users[] = {
		{ "owner", 1234, 1, 0, 0 },
		{ "group", 999, 2345, 0, -EACCES },
		{ "other", 999, 999, -EACCES, -EACCES },
	};
	struct fix f;
	size_t i;

	start(&f, &conf);
	for (i = 0; i < ARRAY_SIZE(users); i++)
		EXPECT_EQ(reap(spawn(open_as, &users[i]), 20000), 0);
	/* A node that somebody has opened wide does not open the region. */
	ASSERT_RET(SYS(chmod(frontend_path(FE_NODE, f.name), 0666)), 0);
	for (i = 0; i < ARRAY_SIZE(users); i++)
		EXPECT_EQ(reap(spawn(open_as, &users[i]), 20000), 0);
	stop(&f);
}

TEST(read_only_region)
{
	struct region_conf conf = {
		.size = SIZE, .order = -1, .mode = 0666,
		.flags = RMEM_REGION_READ_ONLY,
	};
	unsigned char *p;
	struct fix f;
	int fe, fd;

	start(&f, &conf);
	for_each_frontend(fe) {
		EXPECT_RET(frontend_open(fe, f.name, O_RDWR), -EROFS);
		EXPECT_RET(frontend_open(fe, f.name, O_WRONLY), -EROFS);
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDONLY));
		p = map_fd(fd, SIZE, PROT_READ);
		EXPECT_EQ(pattern_diff(p, 0, SIZE), -1);
		EXPECT_RET(SYS(mprotect(p, SIZE, PROT_READ | PROT_WRITE)), -EACCES);
		munmap(p, SIZE);
		close(fd);
	}
	stop(&f);
}

TEST(read_only_descriptor)
{
	unsigned char *p;
	struct fix f;
	int fe, fd;

	start(&f, &plain);
	for_each_frontend(fe) {
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDONLY));
		EXPECT_RET(SYS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				    MAP_SHARED, fd, 0)), -EACCES);
		EXPECT_RET(SYS(pwrite(fd, "x", 1, 0)), -EBADF);
		p = map_fd(fd, SIZE, PROT_READ);
		EXPECT_RET(SYS(mprotect(p, PAGE, PROT_READ | PROT_WRITE)), -EACCES);
		munmap(p, SIZE);
		/* A private copy is one's own business. */
		p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		ASSERT(p != MAP_FAILED);
		poke(p, 'p');
		EXPECT_EQ(peek(p), 'p');
		EXPECT_EQ(peek(f.map), pattern(0));
		munmap(p, PAGE);
		close(fd);

		fd = ASSERT_OK(frontend_open(fe, f.name, O_WRONLY));
		EXPECT_RET(SYS(pread(fd, buf, 1, 0)), -EBADF);
		EXPECT_RET(SYS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0)), -EACCES);
		close(fd);
	}
	EXPECT_EQ(STAT(f.id, dirty), 0);
	stop(&f);
}

/*
 * The end
 */

TEST(past_the_end)
{
	const size_t last = (ODD_SIZE + PAGE - 1) / PAGE * PAGE;
	struct sigbus why;
	unsigned char *p;
	struct fix f;
	int fe, fd;

	start(&f, &odd);
	for_each_frontend(fe) {
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		p = mmap(NULL, last + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		ASSERT(p != MAP_FAILED);
		EXPECT_RET(try_read(p + last - 1, NULL, NULL), 0);
		EXPECT_RET(try_read(p + last + 5, NULL, &why), -EFAULT);
		EXPECT(why.addr == p + last + 5);
		EXPECT_EQ(why.code, BUS_ADRERR);
		EXPECT_RET(try_write(p + last + PAGE, 1, &why), -EFAULT);
		munmap(p, last + 2 * PAGE);

		EXPECT_RET(SYS(pread(fd, buf, PAGE, ODD_SIZE - 10)), 10);
		EXPECT_EQ(pattern_diff(buf, ODD_SIZE - 10, 10), -1);
		EXPECT_RET(SYS(pread(fd, buf, PAGE, ODD_SIZE)), 0);
		EXPECT_RET(SYS(pread(fd, buf, PAGE, 1ll << 40)), 0);
		pattern_fill(buf, ODD_SIZE - 10, PAGE);
		EXPECT_RET(SYS(pwrite(fd, buf, PAGE, ODD_SIZE - 10)), 10);
		EXPECT_RET(SYS(pwrite(fd, buf, 1, ODD_SIZE)), -ENOSPC);
		EXPECT_RET(SYS(pwrite(fd, buf, PAGE, 1ll << 40)), -ENOSPC);
		EXPECT_RET(SYS(pwrite(fd, buf, 0, ODD_SIZE)), 0);
		close(fd);
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR | O_APPEND));
		EXPECT_RET(SYS(write(fd, buf, 1)), -ENOSPC);
		close(fd);
	}
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(pattern_diff(f.store, 0, ODD_SIZE), -1);
	stop(&f);
}

/* The tail of the last page: zeros, and no business of the store. */
TEST(tail_of_the_last_page)
{
	const size_t page = ODD_SIZE / PAGE * PAGE, tail = PAGE - ODD_SIZE % PAGE;
	struct region_conf conf = odd;
	struct fix f;
	__u32 i;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		start(&f, &conf);
		context("order %d", conf.order);
		ASSERT_RET(fix_quiet(&f), 0);
		EXPECT_EQ(bytes_diff(f.map + ODD_SIZE, 0, tail), -1);
		EXPECT_EQ(mini_logged_bytes(f.m, RMEM_OP_FETCH), ODD_SIZE % CHUNK);
		/* What is written there is nobody's promise but ours: not pushed. */
		memset(f.map + page, 't', PAGE);
		EXPECT_RET(SYS(msync(f.map, ODD_SIZE, MS_SYNC)), 0);
		EXPECT_EQ(bytes_diff(f.store + page, 't', ODD_SIZE - page), -1);
		EXPECT_EQ(pattern_diff(f.store, 0, page), -1);
		for (i = 0; i < f.m->nlog; i++)
			EXPECT_LE(f.m->log[i].offset + f.m->log[i].length, ODD_SIZE);
		EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), ODD_SIZE - page);
		EXPECT_EQ(STAT(f.id, dirty) + STAT(f.id, writeback), 0);
		/* Fetched again it is what it was first. */
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		EXPECT_EQ(bytes_diff(f.map + page, 't', ODD_SIZE - page), -1);
		EXPECT_EQ(bytes_diff(f.map + ODD_SIZE, 0, tail), -1);
		stop(&f);
	}
}

TEST(smallest_regions)
{
	static const __u64 sizes[] = { 1, 4095, 4096, 4097, CHUNK, CHUNK + 1 };
	struct region_conf conf = { .order = -1 };
	struct fix f;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		conf.size = sizes[i];
		start(&f, &conf);
		context("size %llu", sizes[i]);
		EXPECT_EQ(pattern_diff(f.map, 0, sizes[i]), -1);
		EXPECT_EQ(MINI_GET(f.m, fetch_bytes), sizes[i]);
		poke(f.map + sizes[i] - 1, 'z');
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(f.store[sizes[i] - 1], 'z');
		EXPECT_EQ(pattern_diff(f.store, 0, sizes[i] - 1), -1);
		stop(&f);
	}
}

TEST(size_is_fixed)
{
	const char *path;
	struct stat st;
	struct fix f;
	int fd;

	start(&f, &odd);
	context("file");
	path = frontend_path(FE_FILE, f.name);
	fd = ASSERT_OK(frontend_open(FE_FILE, f.name, O_RDWR));
	EXPECT_RET(SYS(ftruncate(fd, 0)), -EPERM);
	EXPECT_RET(SYS(ftruncate(fd, ODD_SIZE - 1)), -EPERM);
	EXPECT_RET(SYS(ftruncate(fd, ODD_SIZE + 1)), -EPERM);
	EXPECT_RET(SYS(ftruncate(fd, ODD_SIZE)), 0);
	EXPECT_RET(SYS(truncate(path, 0)), -EPERM);
	EXPECT_RET(SYS(truncate(path, ODD_SIZE)), 0);
	EXPECT_RET(SYS(fallocate(fd, 0, ODD_SIZE, 1)), -EPERM);
	EXPECT_RET(SYS(fallocate(fd, 0, 0, ODD_SIZE + PAGE)), -EPERM);
	EXPECT_RET(SYS(open(path, O_RDWR | O_TRUNC)), -EPERM);
	EXPECT_RET(SYS(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600)), -EPERM);
	ASSERT_RET(SYS(fstat(fd, &st)), 0);
	EXPECT_EQ(st.st_size, ODD_SIZE);
	close(fd);

	context("node");
	fd = ASSERT_OK(frontend_open(FE_NODE, f.name, O_RDWR | O_TRUNC));
	EXPECT(ftruncate(fd, 0) < 0);
	EXPECT(fallocate(fd, 0, 0, ODD_SIZE + PAGE) < 0);
	EXPECT_RET(SYS(lseek(fd, 0, SEEK_END)), ODD_SIZE);
	close(fd);
	context("device");
	fd = ASSERT_OK(frontend_open(FE_DEVICE, f.name, O_RDWR | O_TRUNC));
	EXPECT_RET(SYS(lseek(fd, 0, SEEK_END)), ODD_SIZE);
	close(fd);
	EXPECT_EQ(pattern_diff(f.map, 0, ODD_SIZE), -1);
	EXPECT_EQ(pattern_diff(f.store, 0, ODD_SIZE), -1);
	stop(&f);
}

/* The same size again changes nothing, so it may be allowed or not. */
TEST(fallocate_modes)
{
	static const int modes[] = {
		FALLOC_FL_KEEP_SIZE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_INSERT_RANGE,
		FALLOC_FL_UNSHARE_RANGE,
	};
	struct fix f;
	size_t i;
	int fd;

	start(&f, &plain);
	fd = ASSERT_OK(frontend_open(FE_FILE, f.name, O_RDWR));
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		context("mode 0x%x", modes[i]);
		EXPECT_RET(SYS(fallocate(fd, modes[i], 0, CHUNK)), -EOPNOTSUPP);
	}
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	close(fd);
	fd = ASSERT_OK(frontend_open(FE_FILE, f.name, O_RDONLY));
	EXPECT_RET(SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				 CHUNK)), -EBADF);
	close(fd);
	stop(&f);
}

/*
 * Holes
 */

enum before { COLD, CLEAN, DIRTY, BEFORES };

static const char *const befores[] = { "cold", "clean", "dirty" };

static void punch_one(int order, enum before before, bool fallocated, size_t at,
		      size_t len)
{
	struct region_conf conf = { .size = SIZE, .order = order };
	static unsigned char want[SIZE];
	__u64 zeroed;
	struct fix f;
	int fd;

	start(&f, &conf);
	context("%s order %d %s %zu + %zu", befores[before], order,
		fallocated ? "fallocate" : "ioctl", at, len);
	pattern_fill(want, 0, SIZE);
	if (before != COLD)
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	if (before == DIRTY) {
		memset(f.map, 'd', SIZE);
		memset(want, 'd', SIZE);
	}
	fd = ASSERT_OK(frontend_open(fallocated ? FE_FILE : FE_NODE, f.name, O_RDWR));
	if (fallocated)
		EXPECT_RET(SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE |
					 FALLOC_FL_KEEP_SIZE, at, len)), 0);
	else
		EXPECT_RET(region_punch(fd, at, len), 0);
	memset(want + at, 0, len);

	/* Durable when the call returns; the neighbours are as they were. */
	EXPECT_EQ(bytes_diff(f.store + at, 0, len), -1);
	if (before != DIRTY) {
		EXPECT_EQ(pattern_diff(f.store, 0, at), -1);
		EXPECT_EQ(pattern_diff(f.store + at + len, at + len,
				       SIZE - at - len), -1);
	}
	/* Whole pages go as what they are: no bytes on the wire for zeros. */
	zeroed = (at + len) / PAGE * PAGE;
	if (zeroed > (at + PAGE - 1) / PAGE * PAGE) {
		zeroed -= (at + PAGE - 1) / PAGE * PAGE;
		EXPECT_GE(MINI_GET(f.m, zero_bytes), zeroed);
	}
	EXPECT(!memcmp(f.map, want, SIZE));
	EXPECT_RET(SYS(fsync(fd)), 0);
	EXPECT(!memcmp(f.store, want, SIZE));
	/* And from the store again. */
	EXPECT_RET(region_drop(fd, 0, 0), 0);
	EXPECT(!memcmp(f.map, want, SIZE));
	/* A hole can be written again. */
	poke(f.map + at, 'w');
	EXPECT_RET(SYS(fsync(fd)), 0);
	EXPECT_EQ(f.store[at], 'w');
	close(fd);
	stop(&f);
}

static void punch_all(bool fallocated)
{
	static const struct { size_t at, len; } holes[] = {
		{ 0, SIZE },			/* all of it */
		{ 2 * CHUNK, CHUNK },		/* one chunk */
		{ CHUNK + PAGE, 3 * PAGE },	/* pages in a chunk */
		{ CHUNK - 2 * PAGE, 4 * PAGE },	/* across chunks */
		{ CHUNK + 100, 5000 },		/* two partial pages, none whole */
		{ 3 * CHUNK - 10, CHUNK + 20 },	/* whole ones between partial ones */
		{ 9 * PAGE + 1, 10 },		/* inside a page */
	};
	size_t i;
	int b;

	for (i = 0; i < ARRAY_SIZE(holes); i++) {
		for (b = 0; b < BEFORES; b++)
			punch_one(i & 1 ? 4 : 0, b, fallocated, holes[i].at, holes[i].len);
	}
	punch_one(4, DIRTY, fallocated, CHUNK + 100, 5000);
	punch_one(4, CLEAN, fallocated, CHUNK + PAGE, 3 * PAGE);
}

TEST_SECONDS(punch_by_ioctl, 120)
{
	punch_all(false);
}

TEST_SECONDS(punch_by_fallocate, 120)
{
	punch_all(true);
}

/* The third way to make a hole, on what has files behind its mapping. */
TEST(punch_by_madvise)
{
	unsigned char *p;
	struct fix f;
	int fd;

	start(&f, &plain);
	fd = ASSERT_OK(frontend_open(FE_FILE, f.name, O_RDWR));
	p = map_fd(fd, SIZE, PROT_READ | PROT_WRITE);
	memset(p + CHUNK, 'm', CHUNK);
	EXPECT_RET(SYS(madvise(p + CHUNK + PAGE, CHUNK, MADV_REMOVE)), 0);
	EXPECT_EQ(bytes_diff(p + CHUNK, 'm', PAGE), -1);
	EXPECT_EQ(bytes_diff(p + CHUNK + PAGE, 0, CHUNK), -1);
	EXPECT_EQ(bytes_diff(f.store + CHUNK + PAGE, 0, CHUNK), -1);
	EXPECT_EQ(pattern_diff(p + 2 * CHUNK + PAGE, 2 * CHUNK + PAGE, PAGE), -1);
	munmap(p, SIZE);
	close(fd);
	stop(&f);
}

/* The store refuses: the caller hears of it. */
TEST(punch_fails)
{
	struct fix f;

	start(&f, &plain);
	MINI_SET(f.m, write_errno, EIO);
	MINI_SET(f.m, write_fails, -1);
	MINI_SET(f.m, write_mode, MINI_FAIL);
	EXPECT_RET(region_punch(f.fd, CHUNK, CHUNK), -EIO);
	MINI_SET(f.m, write_mode, MINI_OK);
	EXPECT_RET(region_punch(f.fd, CHUNK, CHUNK), 0);
	EXPECT_EQ(bytes_diff(f.store + CHUNK, 0, CHUNK), -1);
	EXPECT_EQ(bytes_diff(f.map + CHUNK, 0, CHUNK), -1);
	stop(&f);
}

/* What happens to open files is that of files: O_DSYNC is a sync per write. */
TEST(o_dsync)
{
	struct fix f;
	int fe, fd;

	start(&f, &plain);
	for_each_frontend(fe) {
		fd = frontend_open(fe, f.name, O_RDWR | O_DSYNC);
		ASSERT_GE(fd, 0);
		EXPECT_RET(SYS(pwrite(fd, "sync", 4, fe * CHUNK + 10)), 4);
		EXPECT(!memcmp(f.store + fe * CHUNK + 10, "sync", 4));
		close(fd);
	}
	EXPECT_EQ(STAT(f.id, dirty) + STAT(f.id, writeback), 0);
	stop(&f);
}

/* A block device on top of the file: reads, writes and flushes by a kthread. */
TEST(loop_device)
{
	struct loop_config config = { .block_size = PAGE };
	int control, loop, fd, n;
	char path[32];
	struct fix f;

	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0 && !system("modprobe -q loop"))
		control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		SKIP("no loop devices");
	start(&f, &plain);
	fd = ASSERT_OK(frontend_open(FE_FILE, f.name, O_RDWR));
	n = ASSERT_OK(SYS(ioctl(control, LOOP_CTL_GET_FREE)));
	snprintf(path, sizeof(path), "/dev/loop%d", n);
	loop = ASSERT_OK(SYS(open(path, O_RDWR | O_CLOEXEC)));
	config.fd = fd;
	ASSERT_RET(SYS(ioctl(loop, LOOP_CONFIGURE, &config)), 0);
	EXPECT_RET(SYS(lseek(loop, 0, SEEK_END)), SIZE);
	EXPECT_RET(SYS(pread(loop, buf, SIZE, 0)), SIZE);
	EXPECT_EQ(pattern_diff(buf, 0, SIZE), -1);
	memset(buf, 'l', CHUNK);
	EXPECT_RET(SYS(pwrite(loop, buf, CHUNK, 3 * CHUNK)), CHUNK);
	EXPECT_RET(SYS(fsync(loop)), 0);
	EXPECT_EQ(bytes_diff(f.store + 3 * CHUNK, 'l', CHUNK), -1);
	EXPECT_EQ(bytes_diff(f.map + 3 * CHUNK, 'l', CHUNK), -1);
	/* A discard is a hole. */
	EXPECT_RET(SYS(ioctl(loop, BLKDISCARD, (__u64[]){ 4 * CHUNK, CHUNK })), 0);
	EXPECT_EQ(bytes_diff(f.store + 4 * CHUNK, 0, CHUNK), -1);
	EXPECT_EQ(pattern_diff(f.store + 5 * CHUNK, 5 * CHUNK, CHUNK), -1);
	EXPECT_RET(SYS(ioctl(loop, LOOP_CLR_FD)), 0);
	close(loop);
	close(fd);
	close(control);
	EXPECT_SOON(STAT(f.id, users) == 1);
	stop(&f);
}
