/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For tests of the ioctls that take a socket: a region whose daemon is the test
 * itself, and pairs of connected sockets. After harness.h.
 */
#ifndef SELFTEST_RAW_H
#define SELFTEST_RAW_H

#include <arpa/inet.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "miniserve.h"

#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

struct raw {
	struct chan c;
	__u32 id;
	__u64 size;
	int fd;
	unsigned char *map;
	char name[RMEM_NAME_SIZE];
};

static inline void raw_start(struct raw *r, const struct region_conf *c)
{
	struct region_conf conf = *c;

	conf.name = region_fresh_name();
	snprintf(r->name, sizeof(r->name), "%s", conf.name);
	r->size = conf.size;
	ASSERT_RET(region_new(&conf, &r->id), 0);
	ASSERT_RET(chan_open(&r->c, 64), 0);
	ASSERT_RET(chan_serve(&r->c, r->id), 0);
	ASSERT_RET(chan_state(&r->c, r->id, RMEM_STATE_ACTIVE, ""), 0);
	r->fd = ASSERT_OK(region_open(r->name, O_RDWR));
	r->map = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	ASSERT(r->map != MAP_FAILED);
}

static inline void raw_stop(struct raw *r)
{
	munmap(r->map, r->size);
	close(r->fd);
	chan_close(&r->c);
	EXPECT_RET(region_del(r->id), 0);
}

/* What debugfs says of it: NAME=NUMBER */
static inline long long debugfs_number(struct raw *r, const char *name)
{
	long long n = -1;
	char line[512], key[32];
	FILE *f = fopen("/sys/kernel/debug/rmem/regions", "re");
	char *at;

	snprintf(key, sizeof(key), " %s=", name);
	while (f && fgets(line, sizeof(line), f)) {
		at = strstr(line, key);
		if (at && !strncmp(line, r->name, strlen(r->name)) &&
		    line[strlen(r->name)] == ' ')
			n = atoll(at + strlen(key));
	}
	if (f)
		fclose(f);
	return n;
}

/* Bit by bit: what the module has to come to by another way. */
static inline __u32 crc32c_of(const void *from, size_t len)
{
	const unsigned char *bytes = from;
	__u32 crc = ~0u;
	int i;

	while (len--) {
		crc ^= *bytes++;
		for (i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

/*
 * Sockets
 */

enum family { TCP4, TCP6, UNIX, FAMILIES };

static const char *const family_names[] = { "tcp4", "tcp6", "unix" };

struct pair {
	int in, out;
};

static inline int listener(enum family family, struct sockaddr_storage *at, socklen_t *len)
{
	struct sockaddr_in *in4 = (void *)at;
	struct sockaddr_in6 *in6 = (void *)at;
	int fd;

	memset(at, 0, sizeof(*at));
	if (family == TCP4) {
		in4->sin_family = AF_INET;
		in4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*len = sizeof(*in4);
	} else {
		in6->sin6_family = AF_INET6;
		in6->sin6_addr = in6addr_loopback;
		*len = sizeof(*in6);
	}
	fd = ASSERT_OK(SYS(socket(at->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	ASSERT_RET(SYS(bind(fd, (void *)at, *len)), 0);
	ASSERT_RET(SYS(listen(fd, 1)), 0);
	ASSERT_RET(SYS(getsockname(fd, (void *)at, len)), 0);
	return fd;
}

static inline struct pair connected(enum family family)
{
	struct sockaddr_storage at;
	int fds[2], one = 1;
	struct pair p;
	socklen_t len;

	if (family == UNIX) {
		ASSERT_RET(SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)), 0);
		return (struct pair){ fds[0], fds[1] };
	}
	fds[0] = listener(family, &at, &len);
	p.out = ASSERT_OK(SYS(socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)));
	ASSERT_RET(SYS(connect(p.out, (void *)&at, len)), 0);
	p.in = ASSERT_OK(SYS(accept4(fds[0], NULL, NULL, SOCK_CLOEXEC)));
	setsockopt(p.out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	close(fds[0]);
	return p;
}

static inline void disconnect(struct pair *p)
{
	close(p->in);
	close(p->out);
}

/* What waits there. */
#define FOREIGN_BYTES 4096

/* Opens a pair as nobody and passes one end of it on. */
static inline int foreign_opener(void *arg)
{
	static unsigned char bytes[FOREIGN_BYTES];
	char space[CMSG_SPACE(sizeof(int))] __aligned(8) = { 0 };
	struct iovec io = { bytes, 1 };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int via = *(int *)arg, fds[2];

	if (setresuid(65534, 65534, 65534) || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return 1;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fds[0], sizeof(int));
	if (send(fds[1], bytes, FOREIGN_BYTES, 0) != FOREIGN_BYTES || sendmsg(via, &m, 0) != 1)
		return 1;
	return 0;
}

/* A connected socket that somebody else has opened. */
static inline int foreign_socket(void)
{
	char space[CMSG_SPACE(sizeof(int))] __aligned(8);
	unsigned char byte;
	struct iovec io = { &byte, 1 };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct pair via = connected(UNIX);
	pid_t pid = spawn(foreign_opener, &via.out);
	int fd;

	ASSERT_EQ(SYS(recvmsg(via.in, &m, 0)), 1);
	ASSERT(CMSG_FIRSTHDR(&m));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	EXPECT_EQ(reap(pid, 20000), 0);
	disconnect(&via);
	return fd;
}

/*
 * Keeps others out of a TCP socket: whoever sends holds its lock while he copies,
 * and he copies from a page that comes only when the test wants it to.
 */
struct holder {
	int fd, uffd;
	struct uffdio_range page;
	int ret;
	pthread_t thread;
};

static inline void *holder_thread(void *arg)
{
	struct holder *h = arg;

	h->ret = SYS(send(h->fd, (void *)(unsigned long)h->page.start, h->page.len, 0));
	return NULL;
}

/* From now on the socket is held; false: there is no way to. */
static inline bool holder_start(struct holder *h, int fd)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	struct pollfd fault = { .events = POLLIN };
	void *page;

	h->fd = fd;
	h->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (h->uffd < 0)
		return false;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(page != MAP_FAILED);
	h->page = (struct uffdio_range){ (unsigned long)page, 4096 };
	ASSERT_RET(SYS(ioctl(h->uffd, UFFDIO_API, &api)), 0);
	reg.range = h->page;
	ASSERT_RET(SYS(ioctl(h->uffd, UFFDIO_REGISTER, &reg)), 0);
	ASSERT_EQ(pthread_create(&h->thread, NULL, holder_thread, h), 0);
	fault.fd = h->uffd;
	ASSERT_EQ(poll(&fault, 1, 20000), 1);
	return true;
}

/* Its page of zeros goes out. */
static inline void holder_stop(struct holder *h)
{
	struct uffdio_zeropage zero = { .range = h->page };

	ASSERT_RET(SYS(ioctl(h->uffd, UFFDIO_ZEROPAGE, &zero)), 0);
	pthread_join(h->thread, NULL);
	EXPECT_RET(h->ret, h->page.len);
	munmap((void *)(unsigned long)h->page.start, h->page.len);
	close(h->uffd);
}

/* Is the task asleep in the kernel, unkillably as for a socket's lock? */
static inline bool asleep(pid_t tid)
{
	char path[64], state = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = tid ? fopen(path, "re") : NULL;
	if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	if (f)
		fclose(f);
	return state == 'D';
}

static inline bool tls_set(int fd, int direction)
{
	struct tls12_crypto_info_aes_gcm_128 keys = {
		.info = { .version = TLS_1_3_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128 },
	};

	memset(keys.key, 0x42, sizeof(keys.key));
	memset(keys.iv, 0x17, sizeof(keys.iv));
	memset(keys.salt, 0x99, sizeof(keys.salt));
	return !setsockopt(fd, SOL_TLS, direction, &keys, sizeof(keys));
}

static inline bool tls_pair(struct pair *p)
{
	*p = connected(TCP4);
	return !setsockopt(p->in, IPPROTO_TCP, TCP_ULP, "tls", 4) &&
	       !setsockopt(p->out, IPPROTO_TCP, TCP_ULP, "tls", 4) &&
	       tls_set(p->in, TLS_RX) && tls_set(p->out, TLS_TX);
}

#endif /* SELFTEST_RAW_H */
