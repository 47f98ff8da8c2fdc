// SPDX-License-Identifier: GPL-2.0-only
/*
 * A malicious user and a malicious daemon: calls made by chance, out of parts that
 * make sense and parts that do not, by several processes at once. What they get is
 * their business. But the kernel lives (its log is judged at the end), tells no
 * address, lets everything end, and a region of somebody else never notices.
 *
 * RMEM_SEED repeats the chance, though not the order in which processes run.
 * RMEM_LONG=yes: a million calls and more.
 *
 * timeout: 300, long 7200
 */
#include <dirent.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/genetlink.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/klog.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "harness.h"
#include "raw.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (16 * CHUNK)
#define NOBODY 65534
#define WORKERS 3
#define REGIONS 3

/*
 * Chance
 */

static __thread __u64 chance_state;

static __u64 chance(void)
{
	chance_state ^= chance_state >> 12;
	chance_state ^= chance_state << 25;
	chance_state ^= chance_state >> 27;
	return chance_state * 2685821657736338717ull;
}

static void chance_seed(unsigned int seed, int stream)
{
	int i;

	chance_state = ((__u64)seed << 32 | (stream + 1)) * 0x9e3779b97f4a7c15ull;
	for (i = 0; i < 8; i++)
		chance();
}

static unsigned int pick(unsigned int n)
{
	return (chance() >> 20) % n;
}

static bool one_in(unsigned int n)
{
	return !pick(n);
}

#define PICK(array) ((array)[pick(ARRAY_SIZE(array))])

/* A number of the kind that breaks things. */
static __u64 number(void)
{
	static const __u64 edges[] = {
		0, 1, 2, 7, 63, 64, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, SIZE - PAGE,
		SIZE - 1, SIZE, SIZE + 1, RMEM_CHUNK_MAX, INT_MAX, 1ull << 31, UINT_MAX,
		1ull << 32, (1ull << 32) + 1, 1ull << 52, LLONG_MAX - 4095, LLONG_MAX, 1ull << 63,
		-4096ull, -2ull, -1ull,
	};

	switch (pick(4)) {
	case 0:
		return PICK(edges);
	case 1:
		return pick(SIZE / PAGE) * (__u64)PAGE;
	case 2:
		return pick(300);
	default:
		return chance() >> pick(64);
	}
}

/*
 * What all of them share
 */

static struct {
	__u64 calls, succeeded, netlink, touched, died;
	int over;
	__u32 ids[REGIONS];	/* of what the daemons serve */
	__u64 made[32], worked[32]; /* by the index in calls[] */
} *shared;

static bool is_long(void)
{
	const char *s = getenv("RMEM_LONG");

	return s && *s;
}

/* So many calls by every process. */
static __u64 calls_each(__u64 brief, __u64 whole)
{
	return (is_long() ? whole : brief) / WORKERS;
}

static void count(__u64 *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static long long counted(long long ret)
{
	count(&shared->calls);
	if (ret >= 0)
		count(&shared->succeeded);
	return ret;
}

/* Of others: a region that is served, used, and not touched by anybody hostile. */
static struct fix innocent;
static unsigned char stored;

static void innocent_start(void)
{
	struct region_conf conf = { .size = SIZE, .order = -1, .mode = 0600 };

	ASSERT_RET(fix_start(&innocent, &conf), 0);
	EXPECT_EQ(pattern_diff(innocent.map, 0, SIZE / 2), -1);
	stored = 0;
}

/* It can be read, written and synced as ever. */
static void innocent_lives(void)
{
	ASSERT_RET(try_write(innocent.map + SIZE - 1, ++stored, NULL), 0);
	ASSERT_RET(SYS(fsync(innocent.fd)), 0);
	ASSERT_EQ(innocent.store[SIZE - 1], stored);
}

static void innocent_stop(void)
{
	EXPECT_EQ(pattern_diff(innocent.map, 0, SIZE - 1), -1);
	EXPECT_EQ(pattern_diff(innocent.store, 0, SIZE - 1), -1);
	EXPECT_RET(fix_stop(&innocent), 0);
}

/*
 * Memory to point to
 */

static unsigned char *room;		/* CHUNK bytes, nothing before and after */
static unsigned char *read_only;	/* a page */

#define MAPS 6
#define FDS 12

/* Each in a place of its own, with nothing behind: what overruns it meets no other. */
#define PLACE (80ul << 20)

static unsigned char *places;

static struct {
	unsigned char *at;
	size_t len;
	unsigned int place;
} maps[MAPS];

static void *place_of(unsigned int place)
{
	return places + place * PLACE;
}

static void empty_place(unsigned int place)
{
	ASSERT(mmap(place_of(place), PLACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		    MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED);
}

static void unmap(unsigned int i)
{
	if (maps[i].at)
		empty_place(maps[i].place);
	maps[i].at = NULL;
}

/* In place of what was there; two for each, so that it can move. */
static int map(unsigned int i, int fd, size_t len, int prot, int flags, off_t offset)
{
	unsigned int place = 2 * i;
	int err;

	unmap(i);
	if (mmap(place_of(place), len, prot, flags | MAP_FIXED, fd, offset) == MAP_FAILED) {
		err = errno;
		empty_place(place);
		return -err;
	}
	maps[i].at = place_of(place);
	maps[i].len = len;
	maps[i].place = place;
	return 0;
}

static int move(unsigned int i, size_t len, int flags)
{
	unsigned int from = maps[i].place, to = from ^ 1;

	if (mremap(maps[i].at, maps[i].len, len, MREMAP_MAYMOVE | MREMAP_FIXED | flags,
		   place_of(to)) == MAP_FAILED)
		return -errno;
	empty_place(from);
	maps[i].at = place_of(to);
	maps[i].len = len;
	maps[i].place = to;
	return 0;
}

/*
 * Far from all else: a pointer to here with a bit or two spoilt is no place where the
 * process has its stack, or what it shares with others.
 */
#define ARENA (1ul << 44)

static void *arena(size_t at, size_t len, int prot)
{
	void *got = mmap((void *)(ARENA + at), len, prot, MAP_PRIVATE | MAP_ANONYMOUS |
			 MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	ASSERT(got == (void *)(ARENA + at));
	return got;
}

static void memory_start(void)
{
	room = arena(0, CHUNK, PROT_READ | PROT_WRITE);
	read_only = arena(1 << 30, PAGE, PROT_READ);
	places = arena(1ul << 32, (2 * MAPS + 1) * PLACE, PROT_NONE);
}

/* Comes with the fork, and is not for who means harm. */
static void leave(struct fix *f)
{
	if (!f->m)
		return;
	close(f->fd);
	munmap(f->map, f->size);
	munmap(f->store, f->size);
	munmap(f->m, sizeof(*f->m));
}

/* For @len bytes: mostly good, else anything but memory that we need. */
static void *pointer(size_t len)
{
	static void *const bad[] = {
		NULL, (void *)1, (void *)0x800000000000, (void *)0xffff888000000000,
		(void *)0xffffffff81000000, (void *)-1l,
	};
	unsigned int i;

	switch (pick(12)) {
	case 0:
		return PICK(bad);
	case 1:
		return read_only + pick(2) * (PAGE - 8);
	case 2:	/* ends too early */
		return room + CHUNK - (len && len < CHUNK ? pick(len) : 0);
	case 3:
	case 4:
		i = pick(MAPS);
		if (maps[i].at)
			return maps[i].at + pick(maps[i].len);
		return room;
	default:
		return len < CHUNK && one_in(2) ? room + CHUNK - len : room;
	}
}

static __thread sigjmp_buf touch_jmp;

static void on_fault(int sig)
{
	(void)sig;
	siglongjmp(touch_jmp, 1);
}

static void touch(unsigned char *at, bool write)
{
	if (sigsetjmp(touch_jmp, 1))
		return;
	if (write)
		poke(at, 1);
	else
		peek(at);
	count(&shared->touched);
}

/* Nothing that comes out may be a place in the kernel. */
static void no_address(const void *out, const void *in, size_t len, const char *what)
{
	__u64 now, before;
	size_t i;

	for (i = 0; i + 8 <= len; i += 8) {
		memcpy(&now, out + i, 8);
		memcpy(&before, in + i, 8);
		if (now != before && now >> 47 == 0x1ffff && now < -4096ull)
			FAIL("%s: a kernel address at %zu: %llx", what, i, now);
	}
}

/*
 * Arguments: what makes sense, and then some of it spoilt.
 */

static const struct call {
	const char *name;
	unsigned long nr;
	size_t size;
} calls[] = {
#define CALL(name, type) { #name, RMEM_IOC_##name, sizeof(struct rmem_ioc_##type) }
	CALL(ATTACH, attach), CALL(INFO, info), CALL(PUNCH, range), CALL(DROP, range),
	CALL(OVERWRITE, range), CALL(UNSAFE, unsafe), CALL(SETUP, setup), CALL(SERVE, region),
	CALL(PUSH, region), CALL(FILL, fill), CALL(RECEIVE, receive), CALL(COMPLETE, complete),
	CALL(WRITEOUT, writeout), CALL(RUNS, runs), CALL(SEND, send), CALL(PREFETCH, prefetch),
	CALL(STATE, state), CALL(LANE, lane),
#undef CALL
};

#define FILE_CALLS 6

union args {
	__u32 size;
	struct rmem_ioc_attach attach;
	struct rmem_ioc_range range;
	struct rmem_ioc_unsafe unsafe;
	struct rmem_ioc_setup setup;
	struct rmem_ioc_region region;
	struct rmem_ioc_fill fill;
	struct rmem_ioc_receive receive;
	struct rmem_ioc_complete complete;
	struct rmem_ioc_writeout writeout;
	struct rmem_ioc_runs runs;
	struct rmem_ioc_send send;
	struct rmem_ioc_prefetch prefetch;
	struct rmem_ioc_state state;
	struct rmem_ioc_lane lane;
	unsigned char bytes[512];
};

static void spoil(union args *a, size_t size)
{
	int times = one_in(2) ? 0 : 1 + pick(3);
	__u64 n;

	while (times--) {
		n = number();
		switch (pick(4)) {
		case 0:
			memcpy(a->bytes + pick(size / 8) * 8, &n, 8);
			break;
		case 1:
			memcpy(a->bytes + pick(size / 4) * 4, &n, 4);
			break;
		case 2:
			memcpy(a->bytes + pick(size / 2) * 2, &n, 2);
			break;
		default:
			a->bytes[pick(size)] ^= 1u << pick(8);
		}
	}
}

static long long made(const struct call *c, long long ret)
{
	count(&shared->made[c - calls]);
	if (ret >= 0)
		count(&shared->worked[c - calls]);
	return counted(ret);
}

/* One ioctl with arguments that have been set, all but @size. */
static long long make_call(int fd, const struct call *c, union args *a)
{
	unsigned char *at = room + CHUNK - sizeof(union args);
	unsigned long nr = c->nr;
	long long ret;

	a->size = c->size;
	spoil(a, c->size);
	if (one_in(30))
		return made(c, SYS(ioctl(fd, nr, pointer(c->size))));
	/* a caller that is older, newer, or whose memory ends */
	if (one_in(30))
		nr = _IOC(pick(4), RMEM_IOC_TYPE, _IOC_NR(nr), pick(1 << 14));
	if (one_in(30))
		at = room + CHUNK - pick(c->size + 1);
	memcpy(at, a, room + CHUNK - at < (long)sizeof(*a) ? room + CHUNK - at : (long)sizeof(*a));
	ret = SYS(ioctl(fd, nr, at));
	if (at == room + CHUNK - sizeof(union args))
		no_address(at, a, sizeof(*a), c->name);
	return made(c, ret);
}

/*
 * Netlink
 */

/* How long an attribute is, or 0 */
static __u16 width(__u16 type)
{
	switch (type) {
	case RMEM_A_REGION_SIZE:
	case RMEM_A_REGION_RESIDENT_LIMIT:
	case RMEM_A_REGION_DIRTY_LIMIT:
		return 8;
	case RMEM_A_REGION_FOLIO_ORDER:
		return 1;
	case RMEM_A_REGION_FORCE:
		return 0;
	case RMEM_A_REGION_NAME:
	case RMEM_A_REGION_SOURCE:
	case RMEM_A_REGION_INSTANCE:
	case RMEM_A_REGION_BLOB:
		return 16;
	default:
		return 4;
	}
}

/*
 * No other region's id, for who has the authority may unmake it; and no loss policy or
 * timeout, by which our own processes would be killed or wait for ever.
 */
static bool is_harmless(__u16 type)
{
	switch (type & NLA_TYPE_MASK) {
	case RMEM_A_REGION_ID:
	case RMEM_A_REGION_ON_LOSS:
	case RMEM_A_REGION_FAULT_TIMEOUT_MS:
	case RMEM_A_REGION_SYNC_TIMEOUT_MS:
		return false;
	default:
		return true;
	}
}

static void random_attributes(struct nl_msg *m, __u32 id, int control)
{
	static unsigned char data[5000];
	int n = pick(10);
	__u16 type, len;
	char name[32];
	__u64 v;

	if (!one_in(6))
		nl_put_u32(m, RMEM_A_REGION_ID, id);
	if (!one_in(6))
		nl_put_u32(m, RMEM_A_REGION_CONTROL_FD, control);
	/* what a new one needs */
	if (one_in(3)) {
		snprintf(name, sizeof(name), "hostile-new-%u", pick(4));
		nl_put_str(m, RMEM_A_REGION_NAME, name);
		nl_put_u64(m, RMEM_A_REGION_SIZE, SIZE);
		nl_put_u32(m, RMEM_A_REGION_CHUNK, CHUNK);
	}
	while (n-- && m->len < sizeof(m->buf) - sizeof(data) - 64) {
		type = one_in(20) ? chance() : 1 + pick(RMEM_A_REGION_MAX + 2);
		if (!is_harmless(type))
			continue;
		v = number();
		memcpy(data, &v, 8);
		len = one_in(6) ? pick(one_in(6) ? sizeof(data) : 100) : width(type);
		nl_put(m, type, data, len);
	}
}

/* Any command at all; the result. */
static int random_netlink(struct nl *nl, __u8 *cmd, __u32 id, int control)
{
	static struct nl_msg m;
	int ret;

	*cmd = pick(RMEM_CMD_MAX + 2);
	nl_start(nl, &m, *cmd, one_in(4) ? NLM_F_DUMP : one_in(8) ? chance() & 0xfc00 : 0);
	random_attributes(&m, id, control);
	ret = nl_send(nl, &m, NULL, NULL);
	count(&shared->netlink);
	return counted(ret) < 0 ? ret : 0;
}

static void netlink_start(struct nl *nl)
{
	struct timeval patience = { .tv_sec = 1 };

	ASSERT_RET(nl_open(nl), 0);
	ASSERT_RET(SYS(setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience))), 0);
}

/*
 * The user: nobody, who may open one region. Its daemon is honest.
 */

static struct fix mine;
static unsigned int seed;
static __u64 calls_to_make;

static int fds[FDS];

static int user_open(void)
{
	static const int flags[] = {
		O_RDWR, O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_APPEND, O_RDWR | O_NONBLOCK,
		O_RDWR | O_DIRECT, O_RDWR | O_TRUNC, O_RDWR | O_CREAT, O_PATH, O_RDWR | O_SYNC,
		O_DIRECTORY,
	};
	const char *path;
	int fd;

	if (one_in(3)) {
		fd = SYS(open(DEVICE_PATH, PICK(flags) | O_CLOEXEC, 0600));
		if (fd >= 0 && !one_in(8))
			counted(region_attach(fd, one_in(6) ? innocent.name : mine.name));
		return counted(fd);
	}
	/* mounted before by root, in our namespace */
	path = frontend_path(one_in(2) ? FE_NODE : FE_FILE, one_in(6) ? innocent.name : mine.name);
	return counted(SYS(open(path, PICK(flags) | O_CLOEXEC, 0600)));
}

static void user_ioctl(int fd)
{
	static const unsigned long others[] = {
		1, 2, 0x5421, 0x541b, 0x5451, 0x5452, 0x80086601, 0x40086602, 0xc020660b, 0x1277,
		0x801c581f, 0xc0045877, 0x40049409,
	};
	const struct call *c = &calls[one_in(5) ? pick(ARRAY_SIZE(calls)) : pick(FILE_CALLS)];
	union args a = { 0 };

	if (one_in(20)) {
		counted(SYS(ioctl(fd, one_in(2) ? PICK(others) : chance(), pointer(64))));
		return;
	}
	switch (c->nr) {
	case RMEM_IOC_ATTACH:
		memcpy(a.attach.name, mine.name, sizeof(a.attach.name));
		break;
	case RMEM_IOC_PUNCH:
	case RMEM_IOC_DROP:
	case RMEM_IOC_OVERWRITE:
		a.range.offset = number();
		a.range.length = number();
		break;
	case RMEM_IOC_UNSAFE:
		a.unsafe.offset = number() & -4096ull;
		a.unsafe.runs = (unsigned long)pointer(64);
		a.unsafe.run_count = one_in(3) ? number() : pick(200);
		break;
	}
	make_call(fd, c, &a);
}

static void user_map(int fd)
{
	static const int prots[] = {
		PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_WRITE, PROT_NONE,
		PROT_READ | PROT_EXEC,
	};
	static const int kinds[] = {
		MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_SHARED | MAP_POPULATE,
		MAP_SHARED | MAP_NORESERVE, MAP_SHARED | MAP_LOCKED, MAP_SHARED_VALIDATE | MAP_SYNC,
		MAP_PRIVATE | MAP_HUGETLB,
	};
	unsigned int i = pick(MAPS);
	size_t len = one_in(4) ? number() : (1 + pick(40)) * PAGE;
	off_t offset = one_in(3) ? number() : pick(20) * PAGE;

	if (len > 64ull << 20)
		len = 64 << 20;
	counted(map(i, fd, len, PICK(prots), PICK(kinds), offset));
}

static void user_memory(void)
{
	static const int advices[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE,
		MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK, MADV_MERGEABLE, MADV_HUGEPAGE,
		MADV_DONTDUMP, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, 25,
	};
	unsigned int i = pick(MAPS);
	size_t from, len;

	if (!maps[i].at)
		return;
	from = pick((maps[i].len + PAGE - 1) / PAGE) * PAGE;
	len = one_in(8) ? number() : (1 + pick(16)) * PAGE;
	if (from + len > maps[i].len)
		len = maps[i].len - from;
	switch (pick(10)) {
	case 0:
		counted(SYS(madvise(maps[i].at + from, len, PICK(advices))));
		break;
	case 1:
		counted(SYS(msync(maps[i].at + from, len, one_in(2) ? MS_SYNC : pick(8))));
		break;
	case 2:
		counted(SYS(mincore(maps[i].at, maps[i].len < 1 << 20 ? maps[i].len : 1 << 20,
				    room)));
		break;
	case 3:
		counted(SYS(one_in(2) ? mlock(maps[i].at + from, len) :
					munlock(maps[i].at + from, len)));
		break;
	case 4:
		counted(move(i, (1 + pick(300)) * PAGE, one_in(4) ? MREMAP_DONTUNMAP : 0));
		break;
	case 5:
		counted(SYS(mprotect(maps[i].at + from, len, pick(4))));
		break;
	default:
		touch(maps[i].at + from + pick(PAGE), one_in(3));
		count(&shared->calls);
	}
}

static void user_file(int fd)
{
	struct iovec io[3] = {
		{ pointer(100), one_in(20) ? number() : pick(9000) },
		{ pointer(PAGE), PAGE }, { pointer(CHUNK), pick(CHUNK) },
	};
	off_t at = one_in(3) ? number() : pick(SIZE);
	static int pipes[2];
	int n = 1 + pick(3);

	if (!pipes[1] && pipe2(pipes, O_NONBLOCK | O_CLOEXEC))
		return;
	switch (pick(16)) {
	case 0:
	case 1:
		counted(SYS(preadv2(fd, io, n, at, one_in(3) ? pick(64) : 0)));
		break;
	case 2:
	case 3:
		counted(SYS(pwritev2(fd, io, n, at, one_in(3) ? pick(64) : 0)));
		break;
	case 4:
		counted(SYS(read(fd, io[0].iov_base, io[0].iov_len)));
		break;
	case 5:
		counted(SYS(lseek(fd, number(), pick(6))));
		break;
	case 6:
		counted(SYS(one_in(2) ? fsync(fd) : fdatasync(fd)));
		break;
	case 7:
		counted(SYS(fallocate(fd, one_in(2) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE :
				      pick(128), number(), number())));
		break;
	case 8:
		counted(SYS(ftruncate(fd, number())));
		break;
	case 9:
		counted(SYS(posix_fadvise(fd, number(), number(), pick(7))));
		break;
	case 10:
		counted(SYS(splice(fd, &at, pipes[1], NULL, pick(CHUNK), SPLICE_F_NONBLOCK)));
		break;
	case 11:
		counted(SYS(splice(pipes[0], NULL, fd, &at, pick(CHUNK), SPLICE_F_NONBLOCK)));
		break;
	case 12:
		counted(SYS(sendfile(pipes[1], fd, &at, pick(CHUNK))));
		break;
	case 13:
		counted(SYS(sync_file_range(fd, number(), number(), pick(8))));
		break;
	case 14:
		counted(SYS(fcntl(fd, F_SETFL, PICK(((int[]){ 0, O_NONBLOCK, O_APPEND, O_DIRECT })))));
		break;
	default:
		counted(SYS(copy_file_range(fd, &at, fds[pick(FDS)], NULL, pick(CHUNK), 0)));
	}
}

static void user_step(struct nl *nl)
{
	unsigned int i = pick(FDS);
	__u8 cmd;
	int ret;
	pid_t pid;

	if (fds[i] < 0) {
		ret = user_open();
		if (ret >= 0)
			fds[i] = ret;
		return;
	}
	switch (pick(40)) {
	case 0 ... 12:
		user_ioctl(fds[i]);
		break;
	case 13 ... 16:
		user_map(fds[i]);
		break;
	case 17 ... 26:
		user_memory();
		break;
	case 27 ... 34:
		user_file(fds[i]);
		break;
	case 35 ... 37:
		ret = random_netlink(nl, &cmd, one_in(3) ? mine.id : innocent.id, fds[i]);
		/* to look may be allowed; to change is not */
		if (!ret && cmd != RMEM_CMD_REGION_GET)
			FAIL("netlink command %u was obeyed", cmd);
		break;
	case 38:
		counted(SYS(close(fds[i])));
		fds[i] = -1;
		break;
	default:
		if (!one_in(10))
			break;
		/* a child that dies in the middle of something */
		pid = fork();
		if (!pid) {
			alarm(1);
			for (i = 0; i < 50; i++)
				user_memory();
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
		count(&shared->died);
	}
}

static int user_process(void *arg)
{
	__u64 i;
	struct nl nl;

	chance_seed(seed, (long)arg);
	leave(&innocent);
	leave(&mine);
	memory_start();
	signal(SIGBUS, on_fault);
	signal(SIGSEGV, on_fault);
	signal(SIGPIPE, SIG_IGN);
	netlink_start(&nl);
	memset(fds, -1, sizeof(fds));
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		return 1;
	/* the channel is not for him, nor is what others have */
	EXPECT_RET(SYS(open(CONTROL_PATH, O_RDWR)), -EACCES);
	EXPECT_RET(region_open(innocent.name, O_RDONLY), -EACCES);
	for (i = 0; i < calls_to_make; i++)
		user_step(&nl);
	return 0;
}

static void workers_run(int (*process)(void *), void (*meanwhile)(void))
{
	pid_t pids[WORKERS];
	long i;
	int left = WORKERS, status;

	for (i = 0; i < WORKERS; i++)
		pids[i] = spawn(process, (void *)i);
	while (left) {
		meanwhile();
		for (i = 0; i < WORKERS; i++) {
			if (!pids[i] || !waitpid(pids[i], &status, WNOHANG))
				continue;
			if (status)
				FAIL("process %ld ended with status %x", i, status);
			pids[i] = 0;
			left--;
		}
		nap_ms(50);
	}
}

static void shared_start(void)
{
	/* a slow console need not tell of each daemon that comes and goes */
	klogctl(8, NULL, 5);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	ASSERT(shared != MAP_FAILED);
}

/* @first: of the calls that were to work now and then, as most of them do not */
static void tell(unsigned int first, unsigned int end)
{
	unsigned int i;

	for (i = first; i < end; i++) {
		diag("%s: %llu of %llu", calls[i].name, shared->worked[i], shared->made[i]);
		if (shared->made[i] > 2000)
			EXPECT_GE(shared->worked[i], 1);
	}
	diag("%llu calls, %llu of them succeeded, %llu by netlink; %llu touches, %llu deaths",
	     shared->calls, shared->succeeded, shared->netlink, shared->touched, shared->died);
	EXPECT_GE(shared->calls, WORKERS * calls_to_make / 2);
	EXPECT_GT(shared->succeeded, shared->calls / 10);
	EXPECT_GT(shared->calls - shared->succeeded, shared->calls / 10);
}

#define IN_SHORT 240
#define IN_LONG 3600

TEST_SECONDS(user, IN_SHORT)
{
	struct region_conf conf = { .size = SIZE, .order = -1, .mode = 0666 };

	seed = harness_seed();
	shared_start();
	calls_to_make = calls_each(9000, 600000);
	innocent_start();
	ASSERT_RET(fix_start(&mine, &conf), 0);
	ASSERT(rmemfs_mount());

	workers_run(user_process, innocent_lives);

	tell(0, FILE_CALLS);
	EXPECT_EQ(mine.m->trouble, 0);
	ASSERT_RET(rmemfs_umount(), 0);
	EXPECT_RET(fix_stop(&mine), 0);
	innocent_stop();
}

/*
 * The daemon: serves regions that others use, and wrongly.
 */

#define COOKIES 64

static char names[REGIONS][RMEM_NAME_SIZE];
static struct rmem_request asked[COOKIES];
static unsigned int newest;
static unsigned int own_region;
static struct chan channel;
static struct pair pairs[FDS];

static void close_pair(struct pair *p)
{
	if (p->in >= 0)
		close(p->in);
	if (p->out >= 0 && p->out != p->in)
		close(p->out);
	*p = (struct pair){ -1, -1 };
}

/* Connected ones that will do, and all the others. */
static struct pair any_pair(void)
{
	/* none for which the kernel would look for a module each time */
	static const struct { int domain, type, protocol; } kinds[] = {
		{ AF_UNIX, SOCK_STREAM, 0 }, { AF_UNIX, SOCK_DGRAM, 0 },
		{ AF_UNIX, SOCK_SEQPACKET, 0 }, { AF_INET, SOCK_STREAM, 0 },
		{ AF_INET, SOCK_DGRAM, 0 }, { AF_INET, SOCK_RAW, IPPROTO_ICMP },
		{ AF_INET6, SOCK_STREAM, 0 }, { AF_INET6, SOCK_DGRAM, 0 },
		{ AF_NETLINK, SOCK_RAW, 0 },
	};
	struct sockaddr_storage at;
	struct pair p = { -1, -1 };
	socklen_t len;
	unsigned int i = pick(ARRAY_SIZE(kinds));
	int both[2];

	switch (pick(8)) {
	case 0:
		p.in = socket(kinds[i].domain, kinds[i].type | SOCK_CLOEXEC, kinds[i].protocol);
		break;
	case 1:
		if (!socketpair(AF_UNIX, kinds[i % 3].type | SOCK_CLOEXEC, 0, both))
			p = (struct pair){ both[0], both[1] };
		break;
	case 2:
		p.in = listener(one_in(2) ? TCP4 : TCP6, &at, &len);
		break;
	case 3:
		if (!pipe2(both, O_CLOEXEC | O_NONBLOCK))
			p = (struct pair){ both[0], both[1] };
		break;
	case 4:
		if (!tls_pair(&p))
			close_pair(&p);
		break;
	default:
		p = connected(pick(FAMILIES));
	}
	return p;
}

/* Mostly its own, for each has one. */
static __u32 any_region(void)
{
	return one_in(10) ? PICK(shared->ids) : shared->ids[own_region];
}

static int any_fd(void)
{
	if (one_in(20))
		return one_in(2) ? channel.fd : (int)number();
	return one_in(2) ? PICK(pairs).in : PICK(pairs).out;
}

/* Mostly one of that kind, the newest that is known. */
static const struct rmem_request *any_request(__u8 op)
{
	static struct rmem_request wrong;
	unsigned int back = 0;

	if (one_in(10))
		return &PICK(asked);
	while (back < COOKIES - 1 && asked[(newest - back) % COOKIES].op != op)
		back++;
	if (!one_in(10))
		return &asked[(newest - back) % COOKIES];
	wrong = asked[(newest - back) % COOKIES];
	wrong.cookie ^= 1ull << pick(64);
	return &wrong;
}

static void scribble(void)
{
	struct rmem_ring_header *ring = channel.ring;
	unsigned char *at = (unsigned char *)ring;

	if (!ring || ring == MAP_FAILED)
		return;
	switch (pick(6)) {
	case 0:
		ring->head = number();
		break;
	case 1:
		ring->tail = number();
		break;
	case 2:
		ring->entries = number();
		break;
	case 3:
		ring->entries_offset = number();
		break;
	default:
		at[pick(channel.bytes)] = chance();
	}
}

/* What has been asked, whatever the ring has come to look like. */
static void look(void)
{
	struct rmem_request *slots;
	__u32 head;

	if (!channel.ring || channel.ring == MAP_FAILED)
		return;
	slots = (void *)channel.ring + PAGE;
	head = __atomic_load_n(&channel.ring->head, __ATOMIC_ACQUIRE);
	if (head == channel.tail)
		return;
	newest = (newest + 1) % COOKIES;
	asked[newest] = slots[channel.tail % channel.entries];
	channel.tail++;
	if (!one_in(20))
		__atomic_store_n(&channel.ring->tail, channel.tail, __ATOMIC_RELEASE);
}

static void set_lane(struct rmem_ioc_lane *l)
{
	static const unsigned char form[RMEM_LANE_MESSAGE_MAX];

	l->region_id = any_region();
	if (one_in(2)) {
		l->fd = -1;
		l->answer = (unsigned long)pointer(64);
		l->answer_bytes = pick(300);
		return;
	}
	l->fd = any_fd();
	l->lane = 1 + pick(3);
	l->message = (unsigned long)form;
	l->message_bytes = 28 + pick(8);
	l->offset_at = 8;
	l->length_at = 16;
	l->checksum_at = one_in(2) ? 24 : 0;
	l->at_once = one_in(2) ? pick(4) : 0;
	if (one_in(3))
		return;
	l->flags = RMEM_LANE_TAKE;
	l->answer = (unsigned long)form;
	l->answer_mask = (unsigned long)form;
	l->answer_bytes = 36;
	l->answer_offset_at = 8;
	l->answer_length_at = 16;
	l->answer_payload_at = 24;
	l->answer_sum_at = one_in(2) ? 28 : 0;
	l->answer_checksum_at = one_in(2) ? 32 : 0;
}

static void daemon_ioctl(void)
{
	static const __u32 errors[] = {
		0, EIO, ENOSPC, EAGAIN, EROFS, ESTALE, ECANCELED, ENOMEM, -1u, 4096,
	};
	const struct call *c = &calls[one_in(20) ? pick(ARRAY_SIZE(calls)) :
				      FILE_CALLS + pick(ARRAY_SIZE(calls) - FILE_CALLS)];
	const struct rmem_request *q = any_request(RMEM_OP_FETCH);
	__u64 *list = (__u64 *)room;
	union args a = { 0 };
	unsigned int i;
	int fd;

	switch (c->nr) {
	case RMEM_IOC_SETUP:
		a.setup.ring_entries = 64;
		a.setup.uapi_major = RMEM_UAPI_MAJOR;
		a.setup.features = number();
		fd = one_in(4) ? -1 : open(CONTROL_PATH, O_RDWR | O_CLOEXEC);
		make_call(fd < 0 ? channel.fd : fd, c, &a);
		if (fd >= 0)
			close(fd);
		return;
	case RMEM_IOC_SERVE:
	case RMEM_IOC_PUSH:
		a.region.region_id = any_region();
		break;
	case RMEM_IOC_FILL:
		a.fill.cookie = q->cookie;
		a.fill.flags = one_in(2) ? pick(4) : pick(16);
		a.fill.length = one_in(2) ? q->length : number();
		a.fill.offset = one_in(2) ? 0 : number();
		a.fill.addr = (unsigned long)pointer(a.fill.length);
		break;
	case RMEM_IOC_RECEIVE:
		a.receive.cookie = q->cookie;
		a.receive.flags = one_in(2) ? 0 : pick(8);
		a.receive.length = one_in(2) ? 1 + pick(5000) : one_in(2) ? q->length : number();
		a.receive.offset = one_in(2) ? 0 : number();
		a.receive.fd = any_fd();
		break;
	case RMEM_IOC_COMPLETE:
		a.complete.error = PICK(errors);
		a.complete.count = one_in(10) ? number() : 1 + pick(4);
		for (i = 0; i < 4; i++)
			list[i] = any_request(1 + pick(3))->cookie;
		a.complete.cookies = (unsigned long)(one_in(10) ? pointer(32) : list);
		break;
	case RMEM_IOC_WRITEOUT:
		a.writeout.cookie = any_request(RMEM_OP_WRITE)->cookie;
		a.writeout.addr = (unsigned long)pointer(CHUNK);
		a.writeout.addr_bytes = one_in(4) ? number() : CHUNK;
		a.writeout.runs = (unsigned long)pointer(256);
		a.writeout.run_count = one_in(3) ? number() : 16;
		break;
	case RMEM_IOC_RUNS:
		a.runs.cookie = any_request(RMEM_OP_WRITE)->cookie;
		a.runs.runs = (unsigned long)pointer(384);
		a.runs.run_count = one_in(3) ? number() : 16;
		break;
	case RMEM_IOC_SEND:
		a.send.region_id = any_region();
		a.send.fd = any_fd();
		q = any_request(one_in(2) ? RMEM_OP_WRITE : RMEM_OP_FETCH);
		a.send.offset = one_in(6) ? number() : q->offset;
		a.send.length = one_in(3) ? number() : 1 + pick(2 * PAGE);
		break;
	case RMEM_IOC_PREFETCH:
		a.prefetch.region_id = any_region();
		a.prefetch.flags = pick(2);
		a.prefetch.offset = number();
		a.prefetch.length = number();
		break;
	case RMEM_IOC_STATE:
		a.state.region_id = any_region();
		/* FAILED is for ever */
		if (one_in(200))
			a.state.state = RMEM_STATE_FAILED;
		else if (one_in(10))
			a.state.state = RMEM_STATE_DEGRADED;
		snprintf(a.state.reason, sizeof(a.state.reason), "by %u", pick(2));
		break;
	case RMEM_IOC_LANE:
		set_lane(&a.lane);
		break;
	}
	make_call(channel.fd, c, &a);
}

/* The other end of the sockets: rubbish, or answers that might be some. */
static void daemon_bytes(void)
{
	struct pair *p = &PICK(pairs);
	const struct rmem_request *q = any_request(RMEM_OP_FETCH);
	__u64 *answer = (__u64 *)room;
	int i;

	switch (pick(12)) {
	case 0:
		close_pair(p);
		*p = any_pair();
		return;
	case 1:
		shutdown(p->in, pick(3));
		return;
	case 2:
		recv(p->in, room, 28 + pick(100), MSG_DONTWAIT);
		return;
	case 3:
		answer[0] = q->cookie;
		answer[1] = q->offset;
		answer[2] = q->length;
		((__u32 *)room)[6] = q->length;
		send(p->in, room, 36 + (one_in(2) ? CHUNK - 36 : pick(CHUNK - 36)),
		     MSG_DONTWAIT | MSG_NOSIGNAL);
		return;
	case 4:
		send(p->in, room, 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL);
		return;
	default:
		for (i = 0; i < 4; i++)
			answer[i] = chance();
		send(one_in(2) ? p->in : p->out, room, pick(CHUNK), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void daemon_open(void)
{
	if (counted(chan_open(&channel, 64)) < 0) {
		channel.fd = -1;
		channel.ring = NULL;
	}
}

static void daemon_close(void)
{
	if (channel.ring && channel.ring != MAP_FAILED)
		munmap(channel.ring, channel.bytes);
	if (channel.fd >= 0)
		close(channel.fd);
	count(&shared->died);
	channel.fd = -1;
	channel.ring = NULL;
}

/* Its own regions, mapped: to fill from, and to write out to. */
static void daemon_map(void)
{
	unsigned int i = pick(MAPS);
	int fd = region_open(names[pick(REGIONS)], O_RDWR | O_CLOEXEC);

	if (counted(fd) < 0)
		return;
	counted(map(i, fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0));
	close(fd);
}

static void daemon_step(struct nl *nl)
{
	__u8 cmd;

	if (channel.fd < 0) {
		daemon_open();
		if (channel.fd >= 0 && !counted(chan_serve(&channel, shared->ids[own_region])))
			chan_state(&channel, shared->ids[own_region], RMEM_STATE_ACTIVE, "");
		return;
	}
	switch (pick(200)) {
	case 0 ... 99:
		daemon_ioctl();
		break;
	case 100 ... 139:
		look();
		count(&shared->calls);
		break;
	case 140 ... 165:
		daemon_bytes();
		break;
	case 166 ... 185:
		/* mostly left alone, or there would be no requests */
		if (one_in(50))
			scribble();
		break;
	case 186 ... 189:
		daemon_map();
		break;
	case 190 ... 196:
		/* of regions that are not its own it knows nothing */
		random_netlink(nl, &cmd, any_region(), channel.fd);
		break;
	default:
		daemon_close();
	}
}

static int daemon_process(void *arg)
{
	struct nl nl;
	__u64 i;

	chance_seed(seed, 100 + (long)arg);
	leave(&innocent);
	memory_start();
	signal(SIGBUS, on_fault);
	signal(SIGSEGV, on_fault);
	signal(SIGPIPE, SIG_IGN);
	netlink_start(&nl);
	own_region = (long)arg % REGIONS;
	channel.fd = -1;
	for (i = 0; i < FDS; i++)
		pairs[i] = any_pair();
	for (i = 0; i < calls_to_make; i++)
		daemon_step(&nl);
	return 0;
}

/* They use what it serves; whatever they see, they are not held. */
static int victim_process(void *arg)
{
	int fd, r;

	chance_seed(seed, 200 + (long)arg);
	memory_start();
	signal(SIGBUS, on_fault);
	signal(SIGSEGV, on_fault);
	while (!__atomic_load_n(&shared->over, __ATOMIC_RELAXED)) {
		r = pick(REGIONS);
		fd = region_open(names[r], O_RDWR | O_CLOEXEC);
		if (fd < 0) {
			nap_ms(20);
			continue;
		}
		for (r = map(0, fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 0); r >= 0 && r < 40;
		     r++) {
			touch(maps[0].at + pick(SIZE), one_in(2));
			if (one_in(20))
				msync(maps[0].at, SIZE, MS_SYNC);
			if (one_in(20))
				region_drop(fd, 0, 0);
			if (pread(fd, room, 100, pick(SIZE)) < 0)
				continue;
		}
		close(fd);
	}
	return 0;
}

/* Those that are gone, or lost for ever, are made anew. */
static void make_victim_regions(void)
{
	struct region_conf conf = {
		.size = SIZE, .order = -1, .fault_ms = 50, .sync_ms = 1000,
		.on_loss = RMEM_ON_LOSS_ERROR,
	};
	struct region_stat st;
	int i;

	for (i = 0; i < REGIONS; i++) {
		conf.name = names[i];
		if (!region_get_name(names[i], &st)) {
			if (st.state != RMEM_STATE_FAILED)
				continue;
			region_del_force(st.id, NULL);
		}
		conf.order = i - 1;
		region_new(&conf, &shared->ids[i]);
	}
}

static void watch_daemons(void)
{
	innocent_lives();
	make_victim_regions();
}

static void one_left(const struct region_stat *st, void *arg)
{
	if (!strncmp(st->name, "hostile", 7))
		*(__u32 *)arg = st->id;
}

/* By force; whoever waits there is let go. */
static void delete_hostile(void)
{
	__u32 id;

	for (;;) {
		id = 0;
		ASSERT_RET(region_dump(one_left, &id), 0);
		if (!id)
			break;
		ASSERT_RET(region_del_force(id, NULL), 0);
	}
}

TEST_SECONDS(daemon, IN_SHORT)
{
	pid_t victims[2];
	__u64 i;

	seed = harness_seed();
	shared_start();
	calls_to_make = calls_each(9000, 600000);
	innocent_start();
	for (i = 0; i < REGIONS; i++)
		snprintf(names[i], sizeof(names[i]), "hostile-%llu", i);
	make_victim_regions();
	for (i = 0; i < 2; i++)
		victims[i] = spawn(victim_process, (void *)(long)i);

	workers_run(daemon_process, watch_daemons);

	__atomic_store_n(&shared->over, 1, __ATOMIC_RELAXED);
	delete_hostile();
	for (i = 0; i < 2; i++)
		EXPECT_EQ(reap(victims[i], 30000), 0);
	tell(FILE_CALLS, ARRAY_SIZE(calls));
	innocent_stop();
}

__attr(constructor) static void more_time(void)
{
	if (is_long())
		harness_user.seconds = harness_daemon.seconds = IN_LONG;
}
