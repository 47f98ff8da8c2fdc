// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every step with its 1st, its 2nd, ... allocation or user copy failing, until
 * none is left to fail: each time a sane error or none, nothing half done, and
 * the region usable afterwards. What leaks, and what the kernel has to say about
 * it, the checks at the end of the suite tell (tests/vm/debug-checks.sh).
 *
 * Twice: only what the module does itself fails (by the stacks), then whatever
 * the task does in the kernel. Needs a kernel with fault injection
 * (tests/vm/debug-kernel.sh).
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "harness.h"
#include "raw.h"

#define PAGE 4096
#define CHUNK 65536
#define CHUNKS 64
#define SIZE (CHUNKS * CHUNK)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

/*
 * Failing
 */

enum mode { OWN, ALL, MODES };

static const char *const mode_names[] = { "own", "all" };

static bool put(const char *dir, const char *name, unsigned long value)
{
	char path[128], text[32];
	int fd, n;
	bool ok;

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", dir, name);
	n = snprintf(text, sizeof(text), "%lu", value);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, n) == n;
	close(fd);
	return ok;
}

/* Where the module's code is. */
static bool module_text(unsigned long *start, unsigned long *end)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	unsigned long at;
	char line[512], type;

	*start = ~0ul;
	*end = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (!strstr(line, "[rmem]") || sscanf(line, "%lx %c", &at, &type) != 2 ||
		    (type != 't' && type != 'T'))
			continue;
		*start = at < *start ? at : *start;
		*end = at > *end ? at : *end;
	}
	if (f)
		fclose(f);
	*end += PAGE;
	return *end > PAGE;
}

static void set_up(enum mode mode)
{
	static const char *const kinds[] = { "failslab", "fail_page_alloc", "fail_usercopy" };
	unsigned long start, end;
	unsigned int i;

	if (access("/sys/kernel/debug/failslab", F_OK) || access("/proc/self/fail-nth", F_OK))
		SKIP("the kernel cannot fail on demand (CONFIG_FAULT_INJECTION)");
	ASSERT(module_text(&start, &end));
	if (mode == ALL) {
		start = 0;
		end = ~0ul;
	}
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		ASSERT(put(kinds[i], "verbose", 0));
		ASSERT(put(kinds[i], "stacktrace-depth", 24));
		ASSERT(put(kinds[i], "require-start", start));
		ASSERT(put(kinds[i], "require-end", end));
	}
	ASSERT(put("failslab", "ignore-gfp-wait", 0));
	ASSERT(put("fail_page_alloc", "ignore-gfp-wait", 0));
	ASSERT(put("fail_page_alloc", "min-order", 0));
}

static int nth_fd = -1;

/* The @n-th thing of this thread that can fail will. */
static void arm(int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", n);

	ASSERT_EQ(SYS(pwrite(nth_fd, text, len, 0)), len);
}

/* Has it? To tell that may fail as well, and then it had not. */
static bool disarm(void)
{
	char text[16] = "";
	bool failed = pread(nth_fd, text, sizeof(text) - 1, 0) > 0 && !atoi(text);

	while (pwrite(nth_fd, "0", 1, 0) != 1)
		;
	return failed;
}

/*
 * Sweeping
 */

struct step {
	const char *what;
	void (*prepare)(void);
	long long (*run)(void);		/* -errno, or not */
	void (*after)(void);		/* sets right what it left, and sees that it is right */
	int sane;			/* one more errno, besides ENOMEM and EFAULT */
	int least;			/* failures of rmem's own there have to be */
};

/* For them: the number of the try, what it gave, and whether only rmem itself fails. */
static int nth;
static long long result;
static bool own;

static bool is_sane(const struct step *s)
{
	if (result >= 0 || result == -ENOMEM || result == -EFAULT || result == -s->sane)
		return true;
	/* of files, sockets and netlink */
	return !own && (result == -ENOBUFS || result == -ENFILE);
}

static void sweep_mode(const struct step *s, enum mode mode)
{
	int tolerated = 0;
	char name[32];
	bool failed;

	own = mode == OWN;
	for (nth = 1; nth < 5000; nth++) {
		context("%s, %s, failure %d", s->what, mode_names[mode], nth);
		if (s->prepare)
			s->prepare();
		arm(nth);
		result = s->run();
		failed = disarm();
		if (!is_sane(s) || (!failed && result < 0))
			FAIL("%s, and gave %s", failed ? "it failed" : "nothing failed",
			     harness_ret(name, sizeof(name), result));
		tolerated += failed && result >= 0;
		if (s->after)
			s->after();
		if (!failed)
			break;
	}
	EXPECT(nth < 5000);
	if (own)
		EXPECT_GE(nth - 1, s->least);
	diag("%s, %s: %d failures, %d of them without consequences", s->what, mode_names[mode],
	     nth - 1, tolerated);
}

static void sweep(const struct step *s)
{
	enum mode mode;

	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	for (mode = OWN; mode < MODES; mode++) {
		set_up(mode);
		sweep_mode(s, mode);
	}
	close(nth_fd);
}

/* Background writeback would come in between; with 0 it would at once. */
static void no_flusher(void)
{
	ASSERT_OK(sysctl_set("vm/dirty_writeback_centisecs", 360000));
}

/*
 * A program's side. The daemon is a process of its own.
 */

static struct fix f;

static void start(void)
{
	unsigned char seen;

	set_up(OWN);
	no_flusher();
	ASSERT_RET(fix_start(&f, &plain), 0);
	ASSERT_RET(try_read(f.map, &seen, NULL), 0);
}

static void stop(void)
{
	static unsigned char page[PAGE];
	unsigned char v = 0x5a;

	/* as usable as ever */
	EXPECT_EQ(SYS(pread(f.fd, page, PAGE, SIZE - PAGE)), PAGE);
	EXPECT_EQ(memcmp(page, f.store + SIZE - PAGE, PAGE), 0);
	EXPECT_RET(try_write(f.map + SIZE - PAGE, v, NULL), 0);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(f.store[SIZE - PAGE], v);
	EXPECT_RET(fix_stop(&f), 0);
}

static long long run_attach(void)
{
	int fd = open(DEVICE_PATH, O_RDWR | O_CLOEXEC);
	struct rmem_ioc_info info;
	long long ret;

	if (fd < 0)
		return -errno;
	ret = region_attach(fd, f.name);
	if (!ret)
		ret = region_info(fd, &info);
	close(fd);
	return ret;
}

TEST_SECONDS(attach, 120)
{
	start();
	sweep(&(struct step){ .what = "attach", .run = run_attach, .least = 3 });
	stop();
}

static long long run_node(void)
{
	int fd = frontend_open(FE_NODE, f.name, O_RDWR);

	return fd < 0 ? fd : close(fd);
}

static long long run_file(void)
{
	int fd = frontend_open(FE_FILE, f.name, O_RDWR);

	return fd < 0 ? fd : close(fd);
}

static char dir[16] = "/tmp/nth.XXXXXX";

static long long run_mount(void)
{
	struct stat st;
	char path[128];
	int ret = SYS(mount("rmemfs", dir, "rmemfs", 0, NULL));

	if (ret)
		return ret;
	snprintf(path, sizeof(path), "%s/%s", dir, f.name);
	ret = SYS(stat(path, &st));
	while (umount(dir))
		;
	return ret;
}

TEST_SECONDS(nodes_and_files, 240)
{
	start();
	ASSERT(rmemfs_mount());
	ASSERT(mkdtemp(dir));
	sweep(&(struct step){ .what = "node", .run = run_node });
	sweep(&(struct step){ .what = "file", .run = run_file });
	sweep(&(struct step){ .what = "mount", .run = run_mount, .least = 1 });
	EXPECT_RET(SYS(rmdir(dir)), 0);
	stop();
}

static long long run_map(void)
{
	void *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	while (munmap(at, SIZE))
		;
	return 0;
}

TEST_SECONDS(map, 120)
{
	start();
	sweep(&(struct step){ .what = "map", .run = run_map });
	stop();
}

/* Where a try has its page: not where the last one had it, nor near the end. */
static __u64 place(void)
{
	return (__u64)(nth % (CHUNKS - 10)) * CHUNK + nth % 16 * PAGE;
}

/* What it writes there. */
static unsigned char byte(void)
{
	return nth;
}

static void make_absent(void)
{
	ASSERT_RET(region_drop(f.fd, 0, 0), 0);
}

static unsigned char seen;

static long long run_load(void)
{
	/* it is repeated until there is memory; there is no error to be had */
	return try_read(f.map + place(), &seen, NULL) ? -EIO : 0;
}

static long long run_read(void)
{
	return SYS(pread(f.fd, &seen, 1, place()));
}

static void was_read(void)
{
	if (result >= 0)
		EXPECT_EQ(seen, f.store[place()]);
}

TEST_SECONDS(loads, 300)
{
	start();
	sweep(&(struct step){ .what = "load", .prepare = make_absent, .run = run_load,
			      .after = was_read, .least = 1 });
	sweep(&(struct step){ .what = "read", .prepare = make_absent, .run = run_read,
			      .after = was_read, .least = 1 });
	stop();
}

static long long run_store(void)
{
	return try_write(f.map + place(), byte(), NULL) ? -EIO : 0;
}

static long long run_write(void)
{
	unsigned char v = byte();

	return SYS(pwrite(f.fd, &v, 1, place()));
}

/* An instruction that stores, or none of it. */
static void was_written(void)
{
	unsigned char v = byte(), was = f.store[place()], is = peek(f.map + place());

	EXPECT(is == v || (result < 0 && is == was));
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(f.store[place()], is);
}

#define WHOLE (3 * PAGE)

static long long run_overwrite(void)
{
	static unsigned char bytes[WHOLE];

	memset(bytes, byte(), sizeof(bytes));
	return SYS(pwrite(f.fd, bytes, sizeof(bytes), place()));
}

/* So many pages as it has said are new, the others as they were. */
static void was_overwritten(void)
{
	long long written = result < 0 ? 0 : result;
	static unsigned char was[WHOLE];

	memcpy(was, f.store + place(), WHOLE);
	EXPECT_EQ(written % PAGE, 0);
	EXPECT_EQ(bytes_diff(f.map + place(), byte(), written), -1);
	EXPECT_EQ(memcmp(f.map + place() + written, was + written, WHOLE - written), 0);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(memcmp(f.map + place(), f.store + place(), WHOLE), 0);
}

static void make_clean(void)
{
	ASSERT_RET(try_read(f.map + place(), &seen, NULL), 0);
}

TEST_SECONDS(stores, 600)
{
	start();
	sweep(&(struct step){ .what = "store to an absent page", .prepare = make_absent,
			      .run = run_store, .after = was_written, .least = 2 });
	sweep(&(struct step){ .what = "store to a clean page", .prepare = make_clean,
			      .run = run_store, .after = was_written });
	sweep(&(struct step){ .what = "write to an absent page", .prepare = make_absent,
			      .run = run_write, .after = was_written, .least = 2 });
	sweep(&(struct step){ .what = "write of absent pages", .prepare = make_absent,
			      .run = run_overwrite, .after = was_overwritten, .least = 2 });
	sweep(&(struct step){ .what = "write to a clean page", .prepare = make_clean,
			      .run = run_write, .after = was_written, .least = 1 });
	stop();
}

static void make_dirty(void)
{
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_RET(try_write(f.map + (nth + 5 * i) % CHUNKS * CHUNK, byte(), NULL), 0);
}

static long long run_fsync(void)
{
	return SYS(fsync(f.fd));
}

static long long run_msync(void)
{
	return SYS(msync(f.map, SIZE, MS_SYNC));
}

static void was_synced(void)
{
	int i;

	if (result)
		EXPECT_RET(SYS(fsync(f.fd)), 0);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(f.store[(nth + 5 * i) % CHUNKS * CHUNK], byte());
	EXPECT_EQ(STAT(f.id, dirty) + STAT(f.id, writeback), 0);
}

TEST_SECONDS(sync, 300)
{
	start();
	sweep(&(struct step){ .what = "fsync", .prepare = make_dirty, .run = run_fsync,
			      .after = was_synced, .least = 3 });
	sweep(&(struct step){ .what = "msync", .prepare = make_dirty, .run = run_msync,
			      .after = was_synced, .least = 3 });
	stop();
}

/* Nothing that was dirty is lost by what has been done beside it. */
static void was_kept(void)
{
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	was_synced();
}

static long long run_punch(void)
{
	return region_punch(f.fd, place() & -CHUNK, CHUNK + PAGE);
}

static void was_punched(void)
{
	__u64 at = place() & -CHUNK;
	ssize_t there, here;

	if (result)
		EXPECT_RET(region_punch(f.fd, at, CHUNK + PAGE), 0);
	there = bytes_diff(f.store + at, 0, CHUNK + PAGE);
	here = bytes_diff(f.map + at, 0, CHUNK + PAGE);
	EXPECT_EQ(there, -1);
	EXPECT_EQ(here, -1);
}

static long long run_drop(void)
{
	return region_drop(f.fd, place(), CHUNK);
}

static long long run_unsafe(void)
{
	struct rmem_run runs[8];
	__u64 at = 0;

	return region_unsafe(f.fd, &at, runs, 8);
}

TEST_SECONDS(punch_drop_unsafe, 300)
{
	start();
	sweep(&(struct step){ .what = "punch", .prepare = make_dirty, .run = run_punch,
			      .after = was_punched, .least = 2 });
	sweep(&(struct step){ .what = "drop", .prepare = make_dirty, .run = run_drop,
			      .after = was_kept, .least = 1 });
	sweep(&(struct step){ .what = "unsafe", .prepare = make_dirty, .run = run_unsafe,
			      .after = was_kept, .least = 1 });
	stop();
}

/*
 * Regions, made and unmade
 */

static struct region_conf conf = { .name = "nth", .size = SIZE, .order = -1 };
static __u32 id;

/* There is none, whatever befell the answer. */
static void unmake(bool was_made)
{
	struct region_stat st;
	int ret = region_get_name(conf.name, &st);

	if (was_made)
		EXPECT_RET(ret, 0);
	if (!ret)
		EXPECT_RET(region_del(st.id), 0);
}

static long long run_new(void)
{
	return region_new(&conf, &id);
}

static void was_new(void)
{
	struct region_stat st;

	/* of its own answers the module knows whether they went out */
	if (result && own)
		EXPECT_RET(region_get_name(conf.name, &st), -ENOENT);
	unmake(!result);
}

static void make(void)
{
	ASSERT_RET(region_new(&conf, &id), 0);
}

static long long run_del(void)
{
	return region_del(id);
}

static long long run_del_force(void)
{
	__u64 lost = 77;
	int ret = region_del_force(id, &lost);

	if (!ret)
		EXPECT_EQ(lost, 0);
	return ret;
}

static void was_del(void)
{
	struct region_stat st;

	if (!result)
		EXPECT_RET(region_get_name(conf.name, &st), -ENOENT);
	unmake(result && own);
}

static long long run_get(void)
{
	struct region_stat st;

	return region_get(id, &st);
}

static void saw(const struct region_stat *st, void *arg)
{
	*(int *)arg += st->id == id;
}

static long long run_dump(void)
{
	int times = 0, ret = region_dump(saw, &times);

	if (!ret)
		EXPECT_EQ(times, 1);
	return ret;
}

static long long run_set(void)
{
	return region_set(id, 1000 + nth, 1000 + nth, RMEM_ON_LOSS_ERROR);
}

static void was_set(void)
{
	if (!result)
		EXPECT_EQ(STAT(id, fault_ms), 1000 + nth);
	else if (own)
		EXPECT_NE(STAT(id, fault_ms), 1000 + nth);
}

static long long run_abort(void)
{
	return region_abort(id);
}

TEST_SECONDS(region_new, 600)
{
	set_up(OWN);
	sweep(&(struct step){ .what = "region-new", .run = run_new, .after = was_new,
			      .least = 10 });
}

TEST_SECONDS(region_del, 600)
{
	set_up(OWN);
	sweep(&(struct step){ .what = "region-del", .prepare = make, .run = run_del,
			      .after = was_del, .least = 1 });
	sweep(&(struct step){ .what = "region-del by force", .prepare = make,
			      .run = run_del_force, .after = was_del, .least = 2 });
}

TEST_SECONDS(region_others, 300)
{
	set_up(OWN);
	make();
	sweep(&(struct step){ .what = "region-get", .run = run_get, .least = 1 });
	sweep(&(struct step){ .what = "region-get, all", .run = run_dump });
	sweep(&(struct step){ .what = "region-set", .run = run_set, .after = was_set });
	sweep(&(struct step){ .what = "region-abort", .run = run_abort });
	unmake(true);
}

/*
 * The daemon's side: the daemon is the test.
 */

static struct raw r;
static struct rmem_request q;
static unsigned char bytes[CHUNK];

static long long run_serve(void)
{
	int ret = chan_open(&r.c, 64);

	if (ret)
		return ret;
	ret = chan_serve(&r.c, id);
	if (!ret)
		ret = chan_state(&r.c, id, RMEM_STATE_ACTIVE, "");
	chan_close(&r.c);
	return ret;
}

TEST_SECONDS(daemon_attach, 300)
{
	set_up(OWN);
	make();
	sweep(&(struct step){ .what = "setup, serve, state", .run = run_serve, .least = 3 });
	unmake(true);
}

static void raw_begin(void)
{
	set_up(OWN);
	no_flusher();
	raw_start(&r, &plain);
}

/* A chunk is asked for that is not there. */
static void ask(void)
{
	__u64 at = (__u64)(nth % CHUNKS) * CHUNK;

	ASSERT_RET(region_drop(r.fd, 0, 0), 0);
	ASSERT_RET(chan_prefetch(&r.c, r.id, 0, at, CHUNK), 1);
	do {	/* what was filled before is used for the first time: that is told, too */
		ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	} while (q.op != RMEM_OP_FETCH);
	ASSERT_EQ(q.offset, at);
	pattern_fill(bytes, at, CHUNK);
}

/* It has come; if not, then for another answer. */
static void answer_again(void)
{
	int again;

	if (result) {
		again = chan_fill(&r.c, q.cookie, 0, CHUNK, bytes, 0);
		/* the bytes had all been taken, and only the caller was not told */
		EXPECT(!again || (result == -EFAULT && again == -ENOENT));
	}
	EXPECT_EQ(pattern_diff(r.map + q.offset, q.offset, CHUNK), -1);
}

static void was_filled(void)
{
	answer_again();
}

static long long run_fill(void)
{
	return chan_fill(&r.c, q.cookie, 0, CHUNK, bytes, RMEM_FILL_MARK);
}

static struct pair p;
static enum family family;

static void ask_and_send(void)
{
	ask();
	p = connected(family);
	ASSERT_EQ(SYS(send(p.out, bytes, CHUNK, MSG_DONTWAIT)), CHUNK);
}

static long long run_receive(void)
{
	__u64 at = 0, got;
	int ret;

	do {
		got = 0;
		ret = chan_receive(&r.c, q.cookie, at, CHUNK - at, p.in, RMEM_RECEIVE_CHECKSUM,
				   crc32c_of(bytes, CHUNK), &got);
		at += got;
	} while (ret == -EAGAIN);
	return ret;
}

static void was_received(void)
{
	answer_again();
	disconnect(&p);
}

TEST_SECONDS(answers, 600)
{
	struct step receive = { .what = "receive, unix", .prepare = ask_and_send,
				.run = run_receive, .after = was_received, .least = 3 };

	raw_begin();
	/* its arguments and a large folio; kmemleak's records, where there are any, come on top */
	sweep(&(struct step){ .what = "fill", .prepare = ask, .run = run_fill,
			      .after = was_filled, .least = 2 });
	family = UNIX;
	sweep(&receive);
	family = TCP4;
	receive.what = "receive, tcp";
	sweep(&receive);
	raw_stop(&r);
}

static long long run_prefetch(void)
{
	return chan_prefetch(&r.c, r.id, 0, 0, 4 * CHUNK);
}

static void was_prefetched(void)
{
	while (chan_next(&r.c, &q, 0))
		EXPECT_RET(chan_complete(&r.c, &q.cookie, 1, ECANCELED), 0);
}

TEST_SECONDS(prefetch, 300)
{
	raw_begin();
	sweep(&(struct step){ .what = "prefetch", .run = run_prefetch, .after = was_prefetched,
			      .least = 8 });
	raw_stop(&r);
}

/* All is there from now on. */
static void fill_all(void)
{
	int i;

	for (i = 0; i < CHUNKS; i++) {
		ASSERT_RET(chan_prefetch(&r.c, r.id, 0, (__u64)i * CHUNK, CHUNK), 1);
		ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
		pattern_fill(bytes, q.offset, q.length);
		ASSERT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, bytes, 0), 0);
	}
}

static void write_some(void)
{
	ASSERT_RET(try_write(r.map + place(), byte(), NULL), 0);
	ASSERT_RET(try_write(r.map + place() + CHUNK, byte(), NULL), 0);
}

static long long run_push(void)
{
	return chan_push(&r.c, r.id);
}

/* It is durable, all of it. */
static void push_rest(void)
{
	while (STAT(r.id, dirty) + STAT(r.id, writeback)) {
		ASSERT_RET(chan_push(&r.c, r.id), 0);
		while (chan_next(&r.c, &q, 0)) {
			ASSERT_EQ(q.op, RMEM_OP_WRITE);
			EXPECT_RET(chan_complete(&r.c, &q.cookie, 1, 0), 0);
		}
	}
}

static void was_pushed(void)
{
	push_rest();
	EXPECT_EQ(peek(r.map + place()), byte());
}

static void write_and_push(void)
{
	write_some();
	ASSERT_RET(chan_push(&r.c, r.id), 0);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	ASSERT_EQ(q.op, RMEM_OP_WRITE);
	p = connected(family);
}

static long long run_writeout(void)
{
	struct rmem_run runs[16];
	__u64 copied;
	int ret = chan_writeout(&r.c, q.cookie, bytes, CHUNK, runs, 16, &copied);

	if (ret >= 0)
		EXPECT_EQ(bytes[0], byte());
	return ret;
}

static long long run_runs(void)
{
	struct rmem_write_run runs[16];

	return chan_runs(&r.c, q.cookie, runs, 16);
}

static long long run_send(void)
{
	__u64 sent;

	return chan_send(&r.c, r.id, q.offset, PAGE, p.out, &sent);
}

static long long run_complete(void)
{
	return chan_complete(&r.c, &q.cookie, 1, 0);
}

static void was_written_out(void)
{
	disconnect(&p);
	/* of a failed one it is not known whether it counted */
	if (chan_complete(&r.c, &q.cookie, 1, EAGAIN) < 0)
		FAIL("the write cannot be put back");
	push_rest();
	EXPECT_EQ(peek(r.map + place()), byte());
}

TEST_SECONDS(writes, 900)
{
	raw_begin();
	fill_all();
	sweep(&(struct step){ .what = "push", .prepare = write_some, .run = run_push,
			      .after = was_pushed, .least = 2 });
	family = UNIX;
	sweep(&(struct step){ .what = "writeout", .prepare = write_and_push,
			      .run = run_writeout, .after = was_written_out, .least = 3 });
	sweep(&(struct step){ .what = "runs", .prepare = write_and_push,
			      .run = run_runs, .after = was_written_out, .least = 3 });
	sweep(&(struct step){ .what = "send, unix", .prepare = write_and_push,
			      .run = run_send, .after = was_written_out, .least = 2 });
	family = TCP4;	/* without memory it says that there is no room */
	sweep(&(struct step){ .what = "send, tcp", .prepare = write_and_push,
			      .run = run_send, .after = was_written_out, .sane = EAGAIN, .least = 2 });
	sweep(&(struct step){ .what = "complete", .prepare = write_and_push,
			      .run = run_complete, .after = was_written_out, .least = 1 });
	push_rest();
	raw_stop(&r);
}

/*
 * Lanes: the task that misses asks and takes the answer by itself.
 */

#pragma pack(push, 1)
struct message {
	__u64 cookie, offset, length;
};

struct answer {
	__u64 cookie, offset, length;
	__u32 payload, sum;
};
#pragma pack(pop)

static const struct message words;
static const struct answer form, mask;

static int lend(void)
{
	struct rmem_ioc_lane l = {
		.size = sizeof(l),
		.flags = RMEM_LANE_TAKE,
		.region_id = r.id,
		.fd = p.out,
		.lane = 77,
		.message = (unsigned long)&words,
		.message_bytes = sizeof(words),
		.cookie_at = offsetof(struct message, cookie),
		.offset_at = offsetof(struct message, offset),
		.length_at = offsetof(struct message, length),
		.answer = (unsigned long)&form,
		.answer_mask = (unsigned long)&mask,
		.answer_bytes = sizeof(form),
		.answer_cookie_at = offsetof(struct answer, cookie),
		.answer_offset_at = offsetof(struct answer, offset),
		.answer_length_at = offsetof(struct answer, length),
		.answer_payload_at = offsetof(struct answer, payload),
		.answer_sum_at = offsetof(struct answer, sum),
	};

	return chan_lane(&r.c, &l);
}

static void connect_lane(void)
{
	p = connected(TCP4);
}

static long long run_lane(void)
{
	int ret = lend();

	return ret ?: chan_end_lane(&r.c, r.id);
}

static void was_lent(void)
{
	/* or, if it had none: nothing */
	EXPECT_RET(chan_end_lane(&r.c, r.id), 0);
	disconnect(&p);
}

/* The server, and what is left for the daemon. */
static struct {
	pthread_t thread;
	bool over;
	int by_lane, by_daemon;
} other;

static void *other_thread(void *arg)
{
	static unsigned char wire[sizeof(struct answer) + CHUNK];
	struct pollfd in = { .fd = p.in, .events = POLLIN };
	struct answer *a = (struct answer *)wire;
	struct rmem_request left;
	struct message m;

	(void)arg;
	while (!__atomic_load_n(&other.over, __ATOMIC_SEQ_CST)) {
		if (poll(&in, 1, 1) == 1 &&
		    recv(p.in, &m, sizeof(m), MSG_WAITALL) == sizeof(m)) {
			*a = (struct answer){ m.cookie, m.offset, m.length, m.length, 0 };
			pattern_fill(wire + sizeof(*a), m.offset, m.length);
			a->sum = crc32c_of(wire + sizeof(*a), m.length);
			other.by_lane += send(p.in, wire, sizeof(*a) + m.length, MSG_NOSIGNAL) > 0;
		}
		while (chan_next(&r.c, &left, 0)) {
			/* what the takers leave is published once the lane is over */
			if (left.op == RMEM_OP_LANE)
				chan_end_lane(&r.c, r.id);
			if (left.op != RMEM_OP_FETCH)
				continue;
			pattern_fill(wire, left.offset, left.length);
			/* ENOMEM: once more */
			while (chan_fill(&r.c, left.cookie, 0, left.length, wire, 0) == -ENOMEM)
				;
			other.by_daemon++;
		}
	}
	return NULL;
}

static void lend_and_serve(void)
{
	ASSERT_RET(region_drop(r.fd, 0, 0), 0);
	p = connected(TCP4);
	ASSERT_RET(lend(), 0);
	other.over = false;
	ASSERT_EQ(pthread_create(&other.thread, NULL, other_thread, NULL), 0);
}

static long long run_miss(void)
{
	return try_read(r.map + place(), &seen, NULL) ? -EIO : 0;
}

static long long run_miss_by_read(void)
{
	return SYS(pread(r.fd, &seen, 1, place()));
}

static void was_answered(void)
{
	unsigned char v;

	/* the region is as it was, with or without its lane */
	EXPECT_RET(try_read(r.map + place(), &v, NULL), 0);
	EXPECT_EQ(v, pattern(place()));
	__atomic_store_n(&other.over, true, __ATOMIC_SEQ_CST);
	pthread_join(other.thread, NULL);
	EXPECT_RET(chan_end_lane(&r.c, r.id), 0);
	disconnect(&p);
}

TEST_SECONDS(lanes, 900)
{
	raw_begin();
	sweep(&(struct step){ .what = "lane", .prepare = connect_lane, .run = run_lane,
			      .after = was_lent, .least = 4 });
	sweep(&(struct step){ .what = "load with a lane", .prepare = lend_and_serve,
			      .run = run_miss, .after = was_answered, .least = 3 });
	sweep(&(struct step){ .what = "read with a lane", .prepare = lend_and_serve,
			      .run = run_miss_by_read, .after = was_answered, .least = 3 });
	diag("answered on the lane: %d, by the daemon: %d", other.by_lane, other.by_daemon);
	EXPECT_GE(other.by_lane, 1);
	EXPECT_GE(other.by_daemon, 1);
	raw_stop(&r);
}

/*
 * A daemon dies with all of that outstanding, and another one comes.
 */

static void leave_outstanding(void)
{
	write_some();
	ASSERT_RET(region_drop(r.fd, (CHUNKS - 8) * CHUNK, 0), 0);
	p = connected(TCP4);
	ASSERT_RET(lend(), 0);
	ASSERT_GE(chan_prefetch(&r.c, r.id, 0, (CHUNKS - 8) * CHUNK, 8 * CHUNK), 1);
	ASSERT_RET(chan_push(&r.c, r.id), 0);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	/* half of an answer */
	if (q.op == RMEM_OP_FETCH)
		ASSERT_RET(chan_fill(&r.c, q.cookie, 0, PAGE, bytes, 0), 0);
}

static long long run_death(void)
{
	chan_close(&r.c);
	return 0;
}

static void was_dead(void)
{
	int fetches = 0, writes = 0;

	disconnect(&p);
	EXPECT_EQ(STAT(r.id, state), RMEM_STATE_QUIESCED);
	ASSERT_RET(chan_open(&r.c, 64), 0);
	ASSERT_RET(chan_serve(&r.c, r.id), 0);
	ASSERT_RET(chan_state(&r.c, r.id, RMEM_STATE_ACTIVE, ""), 0);
	while (chan_next(&r.c, &q, 0)) {
		fetches += q.op == RMEM_OP_FETCH;
		writes += q.op == RMEM_OP_WRITE;
		EXPECT(q.flags & RMEM_REQ_AGAIN);
		if (q.op == RMEM_OP_WRITE) {
			EXPECT_RET(chan_complete(&r.c, &q.cookie, 1, 0), 0);
			continue;
		}
		pattern_fill(bytes, q.offset, q.length);
		EXPECT_RET(chan_fill(&r.c, q.cookie, 0, q.length, bytes, 0), 0);
	}
	EXPECT_GE(fetches, 1);
	EXPECT_GE(writes, 1);
	push_rest();
	EXPECT_EQ(peek(r.map + place()), byte());
	EXPECT_EQ(pattern_diff(r.map + (CHUNKS - 8) * CHUNK, (CHUNKS - 8) * CHUNK, 8 * CHUNK), -1);
}

TEST_SECONDS(daemon_death, 600)
{
	raw_begin();
	fill_all();
	sweep(&(struct step){ .what = "a daemon's death", .prepare = leave_outstanding,
			      .run = run_death, .after = was_dead, .least = 1 });
	raw_stop(&r);
}
