// SPDX-License-Identifier: GPL-2.0-only
/*
 * What rmem-semantics(7) promises besides what the other programs hold: files
 * and memory of a region behave as those of a local file system.
 */
#include <linux/futex.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <linux/userfaultfd.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (16 * CHUNK)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

static void start(struct fix *f)
{
	ASSERT_RET(fix_start(f, &plain), 0);
}

static void stop(struct fix *f)
{
	EXPECT_RET(fix_stop(f), 0);
}

/*
 * Between processes
 */

#define ROUNDS 2000
#define COUNTER 0		/* words of the region */
#define TURN CHUNK		/* cold until somebody waits for it */

static int add_many(void *arg)
{
	struct fix *f = arg;
	int fd = ASSERT_OK(frontend_open(FE_NODE, f->name, O_RDWR));
	__u64 *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int i;

	ASSERT(map != MAP_FAILED);
	for (i = 0; i < ROUNDS; i++)
		__atomic_fetch_add(&map[COUNTER / 8], 3, __ATOMIC_SEQ_CST);
	return 0;
}

/* Processes with mappings of their own, pushed and evicted meanwhile. */
TEST(atomics_between_processes)
{
	pid_t pids[3];
	struct fix f;
	__u64 first;
	size_t i;

	start(&f);
	memcpy(&first, f.map, sizeof(first));
	for (i = 0; i < ARRAY_SIZE(pids); i++)
		pids[i] = spawn(add_many, &f);
	for (i = 0; i < 20; i++) {
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_RET(region_drop(f.fd, 0, SIZE), 0);
		usleep(2000);
	}
	for (i = 0; i < ARRAY_SIZE(pids); i++)
		EXPECT_EQ(reap(pids[i], 30000), 0);
	first += 3ull * ROUNDS * ARRAY_SIZE(pids);
	EXPECT_EQ(__atomic_load_n((__u64 *)f.map, __ATOMIC_SEQ_CST), first);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(memcmp(f.store, &first, sizeof(first)), 0);
	stop(&f);
}

/* Waits until the word has another value; no longer than the harness. */
static void futex_until(__u32 *word, __u32 value)
{
	for (;;) {
		__u32 seen = __atomic_load_n(word, __ATOMIC_SEQ_CST);

		if (seen == value)
			return;
		if (syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0))
			ASSERT(errno == EAGAIN || errno == EINTR);
	}
}

static void futex_set(__u32 *word, __u32 value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
	ASSERT_OK(SYS(syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0)));
}

static int answer_turns(void *arg)
{
	struct fix *f = arg;
	int fd = ASSERT_OK(frontend_open(FE_FILE, f->name, O_RDWR));
	__u32 *word, i;

	word = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, TURN);
	ASSERT(word != MAP_FAILED);
	for (i = 0; i < 100; i++) {
		futex_until(word, 2 * i + 1);
		futex_set(word, 2 * i + 2);
	}
	return 0;
}

/* A lock or a condition variable may lie in a region: other mapping, other frontend. */
TEST(futex_between_processes)
{
	struct fix f;
	__u32 *word, i;
	pid_t pid;

	ASSERT(rmemfs_mount());
	start(&f);
	word = (__u32 *)(f.map + TURN);
	__atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
	pid = spawn(answer_turns, &f);
	for (i = 0; i < 100; i++) {
		futex_set(word, 2 * i + 1);
		if (i % 20 == 0) {
			/* The page goes and comes back below the waiter. */
			EXPECT_RET(SYS(fsync(f.fd)), 0);
			EXPECT_RET(region_drop(f.fd, 0, SIZE), 0);
		}
		futex_until(word, 2 * i + 2);
	}
	EXPECT_EQ(reap(pid, 30000), 0);
	stop(&f);
}

static int lock_from_elsewhere(void *arg)
{
	struct flock range = { .l_type = F_WRLCK, .l_start = 100, .l_len = 50 };
	int fd = ASSERT_OK(open(arg, O_RDWR | O_CLOEXEC));

	EXPECT_RET(SYS(flock(fd, LOCK_EX | LOCK_NB)), -EAGAIN);
	EXPECT_RET(SYS(fcntl(fd, F_SETLK, &range)), -EAGAIN);
	range.l_start = 200;
	EXPECT_RET(SYS(fcntl(fd, F_SETLK, &range)), 0);
	return 0;
}

/* Advisory locks, among those who open the same path. */
TEST(locks)
{
	struct flock range = { .l_type = F_WRLCK, .l_start = 100, .l_len = 50 };
	enum frontend fe;
	struct fix f;
	int fd;

	ASSERT(rmemfs_mount());
	start(&f);
	for (fe = FE_NODE; fe <= FE_FILE; fe++) {
		context("%s", frontend_names[fe]);
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		EXPECT_RET(SYS(flock(fd, LOCK_EX)), 0);
		EXPECT_RET(SYS(fcntl(fd, F_SETLK, &range)), 0);
		EXPECT_EQ(reap(spawn(lock_from_elsewhere, (void *)frontend_path(fe, f.name)), 20000), 0);
		close(fd);
		/* Gone with who held them. */
		fd = ASSERT_OK(frontend_open(fe, f.name, O_RDWR));
		EXPECT_RET(SYS(flock(fd, LOCK_EX | LOCK_NB)), 0);
		EXPECT_RET(SYS(fcntl(fd, F_SETLK, &range)), 0);
		close(fd);
	}
	stop(&f);
}

static int fill_pages(void *arg)
{
	struct fix *f = arg;
	unsigned char page[PAGE];
	int fd = ASSERT_OK(frontend_open(FE_NODE, f->name, O_RDWR)), i;

	memset(page, 'a' + getpid() % 26, sizeof(page));
	for (i = 0; i < ROUNDS; i++)
		ASSERT_RET(SYS(pwrite(fd, page, PAGE, i % 8 * PAGE)), PAGE);
	return 0;
}

/* write(2) against write(2): each page is the one's or the other's, never both. */
TEST(page_writes_do_not_mix)
{
	struct fix f;
	pid_t a, b;
	int i, round;

	start(&f);
	for (round = 0; round < 5; round++) {
		a = spawn(fill_pages, &f);
		b = spawn(fill_pages, &f);
		EXPECT_EQ(reap(a, 30000), 0);
		EXPECT_EQ(reap(b, 30000), 0);
		for (i = 0; i < 8; i++)
			EXPECT_EQ(bytes_diff(f.map + i * PAGE, peek(f.map + i * PAGE), PAGE), -1);
	}
	stop(&f);
}

/*
 * Files
 */

TEST(direct_io_is_refused)
{
	struct fix f;
	int fd;

	ASSERT(rmemfs_mount());
	start(&f);
	context("file");
	EXPECT_RET(SYS(open(frontend_path(FE_FILE, f.name), O_RDWR | O_DIRECT)), -EINVAL);
	context("node");
	EXPECT_RET(SYS(open(frontend_path(FE_NODE, f.name), O_RDWR | O_DIRECT)), -EINVAL);
	context("afterwards");
	fd = ASSERT_OK(frontend_open(FE_FILE, f.name, O_RDWR));
	EXPECT_RET(SYS(fcntl(fd, F_SETFL, O_DIRECT)), -EINVAL);
	close(fd);
	stop(&f);
}

TEST(nowait_takes_what_is_there)
{
	unsigned char buf[PAGE];
	struct iovec iov = { buf, PAGE };
	struct fix f;

	start(&f);
	EXPECT_RET(SYS(preadv2(f.fd, &iov, 1, CHUNK, RWF_NOWAIT)), -EAGAIN);
	EXPECT_EQ(MINI_GET(f.m, fetches), 0);
	EXPECT_EQ(peek(f.map + CHUNK), pattern(CHUNK));
	EXPECT_RET(SYS(preadv2(f.fd, &iov, 1, CHUNK, RWF_NOWAIT)), PAGE);
	EXPECT_EQ(pattern_diff(buf, CHUNK, PAGE), -1);
	stop(&f);
}

TEST(ms_async_does_not_wait)
{
	struct fix f;

	start(&f);
	ASSERT_RET(fix_quiet(&f), 0);
	memset(f.map, 'w', PAGE);
	MINI_SET(f.m, write_mode, MINI_HOLD);
	EXPECT_RET(SYS(msync(f.map, SIZE, MS_ASYNC)), 0);
	EXPECT_EQ(STAT(f.id, dirty) + STAT(f.id, writeback), PAGE);
	MINI_SET(f.m, write_mode, MINI_OK);
	EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), 0);
	EXPECT_EQ(bytes_diff(f.store, 'w', PAGE), -1);
	stop(&f);
}

/*
 * Memory
 */

TEST(mincore_tells_what_is_resident)
{
	unsigned char vec[SIZE / PAGE];
	struct fix f;
	size_t i;

	start(&f);
	EXPECT_RET(SYS(mincore(f.map, SIZE, vec)), 0);
	for (i = 0; i < ARRAY_SIZE(vec); i++)
		EXPECT_EQ(vec[i] & 1, 0);
	EXPECT_EQ(peek(f.map + CHUNK), pattern(CHUNK));
	EXPECT_RET(SYS(mincore(f.map, SIZE, vec)), 0);
	for (i = 0; i < ARRAY_SIZE(vec); i++)
		EXPECT_EQ(vec[i] & 1, i / (CHUNK / PAGE) == 1);
	EXPECT_EQ(MINI_GET(f.m, fetches), 1);
	stop(&f);
}

#define CORE_DIR "/tmp/selftest.core"

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -errno;
	close(fd);
	return ret;
}

static int crash(void *arg)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	struct fix *f = arg;

	setrlimit(RLIMIT_CORE, &all);
	prctl(PR_SET_DUMPABLE, 1);
	/* all kinds of mappings, those that are shared and of files as well */
	ASSERT_RET(write_text("/proc/self/coredump_filter", "0xff"), 0);
	/* One page is here, and it is dirty; the others are not to be fetched. */
	memset(f->map, 'z', PAGE);
	abort();
}

/* Bytes of the page in the core, or -1 if there is no core. */
static ssize_t core_holds(unsigned char value)
{
	static unsigned char run[PAGE], buf[PAGE];
	char path[300];
	struct dirent *e;
	ssize_t found = -1;
	DIR *d = opendir(CORE_DIR);

	memset(run, value, sizeof(run));
	while (d && (e = readdir(d))) {
		int fd;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), CORE_DIR "/%s", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		/* A mapping's pages lie at page boundaries of the core. */
		for (found = 0; fd >= 0 && read(fd, buf, PAGE) == PAGE;)
			found += !memcmp(buf, run, PAGE) ? PAGE : 0;
		close(fd);
		unlink(path);
	}
	if (d)
		closedir(d);
	return found;
}

/* A dump of a terabyte helps nobody, and must not hang on a dead server. */
TEST(core_dump_leaves_it_out)
{
	static const char pattern_path[] = "/proc/sys/kernel/core_pattern";
	char before[256] = "";
	struct fix f;
	int fd, status;

	fd = ASSERT_OK(open(pattern_path, O_RDONLY | O_CLOEXEC));
	ASSERT(read(fd, before, sizeof(before) - 1) > 0);
	close(fd);
	ASSERT(!mkdir(CORE_DIR, 0700) || errno == EEXIST);
	start(&f);

	context("by default");
	ASSERT_RET(write_text(pattern_path, CORE_DIR "/core.%p"), 0);
	status = reap(spawn(crash, &f), 30000);
	EXPECT(WIFSIGNALED(status) && WCOREDUMP(status));
	EXPECT_EQ(core_holds('z'), 0);
	EXPECT_EQ(MINI_GET(f.m, fetches), 1);

	context("asked for");
	EXPECT_RET(SYS(madvise(f.map, PAGE, MADV_DODUMP)), 0);
	status = reap(spawn(crash, &f), 30000);
	EXPECT(WIFSIGNALED(status) && WCOREDUMP(status));
	EXPECT_EQ(core_holds('z'), PAGE);

	write_text(pattern_path, before);
	rmdir(CORE_DIR);
	stop(&f);
}

TEST(userfaultfd_is_refused)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct fix f;
	int fd;

	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		SKIP("no userfaultfd: %s", strerrorname_np(errno));
	ASSERT_RET(SYS(ioctl(fd, UFFDIO_API, &api)), 0);
	start(&f);
	reg.range.start = (unsigned long)f.map;
	reg.range.len = SIZE;
	EXPECT_RET(SYS(ioctl(fd, UFFDIO_REGISTER, &reg)), -EINVAL);
	close(fd);
	stop(&f);
}

/* Open files and mappings pass to others, and outlive who opened them. */
static int open_and_pass(void *arg)
{
	struct fix *f = ((void **)arg)[0];
	int sock = *(int *)((void **)arg)[1];
	int fd = ASSERT_OK(frontend_open(FE_NODE, f->name, O_RDWR));
	char control[CMSG_SPACE(sizeof(int))] = "", byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
			      .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : 1;
}

TEST(descriptor_passed_on)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
			      .msg_control = control, .msg_controllen = sizeof(control) };
	unsigned char *map;
	int sock[2], fd;
	struct fix f;

	start(&f);
	ASSERT_RET(SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock)), 0);
	EXPECT_EQ(reap(spawn(open_and_pass, (void *[]){ &f, &sock[0] }), 20000), 0);
	ASSERT_RET(SYS(recvmsg(sock[1], &msg, 0)), 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT(map != MAP_FAILED);
	/* The mapping does not need the descriptor. */
	close(fd);
	EXPECT_EQ(pattern_diff(map, 0, SIZE), -1);
	poke(map + PAGE, 'm');
	EXPECT_RET(SYS(munmap(map, SIZE)), 0);
	EXPECT_EQ(peek(f.map + PAGE), 'm');
	close(sock[0]);
	close(sock[1]);
	stop(&f);
}
