// SPDX-License-Identifier: GPL-2.0-only
/*
 * Written pages: noticed once, pushed exactly, clean only when durable, and
 * never lost, whatever the daemon answers.
 */
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define CHUNKS 16
#define SIZE (CHUNKS * CHUNK)
#define PAGES (SIZE / PAGE)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

static void start(struct fix *f, const struct region_conf *c)
{
	ASSERT_RET(fix_start(f, c), 0);
	ASSERT_RET(fix_quiet(f), 0);
}

static void stop(struct fix *f)
{
	EXPECT_RET(fix_stop(f), 0);
	context(" ");
}

static void writes(struct fix *f, enum mini_mode mode, int err, int fails)
{
	MINI_SET(f->m, write_errno, err);
	MINI_SET(f->m, write_fails, fails);
	MINI_SET(f->m, write_mode, mode);
}

static void load_all(struct fix *f)
{
	EXPECT_EQ(pattern_diff(f->map, 0, f->size), -1);
}

/* Every run in the log is the given one, and there is one of it at least. */
static void expect_runs(struct fix *f, const struct rmem_run *runs, int n)
{
	__u64 want = 0;
	__u32 i;
	int r;

	for (r = 0; r < n; r++) {
		want += runs[r].length;
		EXPECT_GE(mini_logged(f->m, MINI_RUN, runs[r].offset, runs[r].length), 1);
	}
	EXPECT_EQ(mini_logged_bytes(f->m, MINI_RUN), want);
	for (i = 0; i < f->m->nlog; i++) {
		struct mini_log *l = &f->m->log[i];

		if (l->op != MINI_RUN)
			continue;
		for (r = 0; r < n; r++)
			if (l->offset >= runs[r].offset &&
			    l->offset + l->length <= runs[r].offset + runs[r].length)
				break;
		if (r == n)
			FAIL("pushed clean bytes: %llu + %llu", l->offset, l->length);
	}
}

/*
 * Noticing
 */

TEST(first_write_is_noticed_once)
{
	struct region_conf conf = plain;
	struct fix f;
	int i;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		EXPECT_EQ(STAT(f.id, f_wp), 0);
		EXPECT_EQ(fix_unclean(&f), 0);
		for (i = 0; i < 10; i++)
			poke(f.map + CHUNK + PAGE + i, i + 1);
		EXPECT_EQ(STAT(f.id, f_wp), 1);
		EXPECT_EQ(STAT(f.id, dirty), PAGE);
		/* Another page of the same chunk is another write. */
		poke(f.map + CHUNK + 3 * PAGE, 'x');
		EXPECT_EQ(STAT(f.id, f_wp), 2);
		EXPECT_EQ(STAT(f.id, dirty), 2 * PAGE);
		EXPECT_EQ(MINI_GET(f.m, writes), 0);
		stop(&f);
	}
}

TEST(rewrite_is_noticed_again)
{
	struct region_conf conf = plain;
	struct fix f;
	int round;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		for (round = 1; round <= 5; round++) {
			mini_log_clear(f.m);
			poke(f.map + CHUNK, round);
			poke(f.map + CHUNK + 1, round);
			EXPECT_EQ(STAT(f.id, f_wp), round);
			EXPECT_EQ(fix_unclean(&f), PAGE);
			EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), 0);
			EXPECT_EQ(fix_unclean(&f), 0);
			EXPECT_EQ(f.store[CHUNK], round);
			EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), PAGE);
		}
		stop(&f);
	}
}

TEST(two_mappings)
{
	struct region_conf conf = plain;
	unsigned char *other;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		other = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
		ASSERT(other != MAP_FAILED);
		poke(f.map, 'a');
		poke(other, 'b');
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(f.store[0], 'b');
		/* Both are write-protected now. */
		poke(other, 'c');
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(msync(other, PAGE, MS_SYNC)), 0);
		EXPECT_EQ(f.store[0], 'c');
		poke(f.map, 'd');
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(f.store[0], 'd');
		EXPECT_EQ(peek(other), 'd');
		munmap(other, SIZE);
		stop(&f);
	}
}

TEST(pwrite_is_noticed)
{
	struct region_conf conf = plain;
	struct iovec iov[2] = { { "one", 3 }, { "two", 3 } };
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		EXPECT_RET(SYS(pwrite(f.fd, "x", 1, PAGE + 7)), 1);
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(pwritev(f.fd, iov, 2, 2 * CHUNK - 3)), 6);
		EXPECT_EQ(fix_unclean(&f), 3 * PAGE);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(fix_unclean(&f), 0);
		EXPECT_EQ(f.store[PAGE + 7], 'x');
		EXPECT(!memcmp(f.store + 2 * CHUNK - 3, "onetwo", 6));
		/* A store through the mapping after a clean pwrite page. */
		poke(f.map + PAGE + 8, 'y');
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(pwrite(f.fd, "z", 1, PAGE + 9)), 1);
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(!memcmp(f.store + PAGE + 7, "xyz", 3));
		stop(&f);
	}
}

/* What is written stays the region's when the writer is gone. */
static int write_and_exit(void *arg)
{
	struct fix *f = arg;

	stamp(f->map + 2 * PAGE, 7);
	return 0;
}

TEST(written_by_a_task_that_is_gone)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		EXPECT_EQ(reap(spawn(write_and_exit, &f), 20000), 0);
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(munmap(f.map, SIZE)), 0);
		EXPECT_EQ(fix_unclean(&f), PAGE);
		EXPECT_RET(SYS(close(f.fd)), 0);
		EXPECT_EQ(fix_unclean(&f), PAGE);
		f.fd = ASSERT_OK(region_open(f.name, O_RDWR));
		f.map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
		EXPECT(stamped(f.map + 2 * PAGE, 7));
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(f.store + 2 * PAGE, 7));
		stop(&f);
	}
}

/*
 * Pushing
 */

TEST(fsync_pushes_exactly_the_dirty_runs)
{
	static const struct rmem_run runs[] = {
		{ 0, PAGE },
		{ 2 * PAGE, 3 * PAGE },
		{ CHUNK - PAGE, 2 * PAGE },	/* over the edge of two chunks */
		{ 3 * CHUNK, CHUNK },		/* a whole one */
		{ 5 * CHUNK + 4 * PAGE, PAGE },
		{ 5 * CHUNK + 6 * PAGE, PAGE },
		{ SIZE - PAGE, PAGE },
	};
	struct region_conf conf = plain;
	__u64 bytes = 0, at;
	struct fix f;
	size_t i;
	__u32 l, last;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		for (i = bytes = 0; i < ARRAY_SIZE(runs); i++) {
			for (at = 0; at < runs[i].length; at += PAGE)
				stamp(f.map + runs[i].offset + at, runs[i].offset + at);
			bytes += runs[i].length;
		}
		EXPECT_EQ(fix_unclean(&f), bytes);
		mini_log_clear(f.m);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(fix_unclean(&f), 0);
		expect_runs(&f, runs, ARRAY_SIZE(runs));
		EXPECT_EQ(STAT(f.id, pushed), bytes);
		EXPECT(!memcmp(f.map, f.store, SIZE));
		for (l = last = 0; l < f.m->nlog; l++)
			if (f.m->log[l].op == RMEM_OP_WRITE)
				last = l;
		for (l = 0; l < f.m->nlog; l++) {
			/* One chunk per request, and somebody waits for it. */
			if (f.m->log[l].op != RMEM_OP_WRITE)
				continue;
			EXPECT_EQ(f.m->log[l].flags,
				  RMEM_REQ_SYNC | (l == last ? RMEM_REQ_LAST : 0));
			EXPECT_EQ(f.m->log[l].offset / CHUNK,
				  (f.m->log[l].offset + f.m->log[l].length - 1) / CHUNK);
		}
		/* Nothing is left to do. */
		mini_log_clear(f.m);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_RET(SYS(fdatasync(f.fd)), 0);
		EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), 0);
		EXPECT_EQ(f.m->nlog, 0);
		stop(&f);
	}
}

TEST(random_pages)
{
	struct region_conf conf = plain;
	unsigned char dirty[PAGES];
	unsigned int seed = harness_seed();
	struct fix f;
	__u64 bytes;
	int round, i;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		for (round = 0; round < 10; round++) {
			memset(dirty, 0, sizeof(dirty));
			for (i = 0; i < 60; i++) {
				int p = rand_r(&seed) % PAGES;

				stamp(f.map + p * PAGE, round * PAGES + p);
				dirty[p] = 1;
			}
			for (i = bytes = 0; i < PAGES; i++)
				bytes += dirty[i] * PAGE;
			EXPECT_EQ(fix_unclean(&f), bytes);
			mini_log_clear(f.m);
			EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), 0);
			EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), bytes);
			for (i = 0; i < PAGES; i++)
				EXPECT_EQ(mini_logged(f.m, MINI_RUN, i * PAGE, PAGE), dirty[i]);
			EXPECT(!memcmp(f.map, f.store, SIZE));
		}
		stop(&f);
	}
}

TEST(msync_of_a_range)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		stamp(f.map + 8 * CHUNK, 2);
		EXPECT_RET(SYS(msync(f.map + 8 * CHUNK, PAGE, MS_SYNC)), 0);
		EXPECT(stamped(f.store + 8 * CHUNK, 2));
		/* Asynchronous means: no promise, and no error. */
		EXPECT_RET(SYS(msync(f.map, SIZE, MS_ASYNC)), 0);
		EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), 0);
		EXPECT(stamped(f.store, 1));
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

TEST(push)
{
	struct region_conf conf = plain;
	struct fix f;
	__u32 i;

	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map + PAGE, 1);
		stamp(f.map + 9 * CHUNK, 2);
		EXPECT_EQ(fix_unclean(&f), 2 * PAGE);
		mini_log_clear(f.m);
		EXPECT_RET(fix_push(&f), 0);
		EXPECT_SOON(fix_unclean(&f) == 0);
		EXPECT(stamped(f.store + PAGE, 1));
		EXPECT(stamped(f.store + 9 * CHUNK, 2));
		EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), 2 * PAGE);
		for (i = 0; i < f.m->nlog; i++)
			EXPECT_EQ(f.m->log[i].flags & RMEM_REQ_SYNC, 0);
		stop(&f);
	}
}

TEST(push_does_not_wait)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		writes(&f, MINI_HOLD, 0, 0);
		EXPECT_RET(fix_push(&f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 1);
		EXPECT_EQ(STAT(f.id, writeback), PAGE);
		EXPECT_EQ(STAT(f.id, dirty), 0);
		EXPECT_RET(fix_push(&f), 0);
		EXPECT_RET(fix_push(&f), 0);
		EXPECT_EQ(MINI_GET(f.m, writes), 1);
		EXPECT_EQ(MINI_GET(f.m, held), 1);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_SOON(fix_unclean(&f) == 0);
		EXPECT(stamped(f.store, 1));
		stop(&f);
	}
}

/* A push is under way when fsync comes: it waits for that, no less. */
struct sync {
	struct fix *f;
	pid_t tid;
	pthread_t thread;
};

static void *fsync_thread(void *arg)
{
	struct sync *s = arg;

	__atomic_store_n(&s->tid, gettid(), __ATOMIC_SEQ_CST);
	return (void *)(long)SYS(fsync(s->f->fd));
}

TEST(fsync_waits_for_a_push)
{
	struct region_conf conf = plain;
	struct sync s;
	struct fix f;
	void *ret;

	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		writes(&f, MINI_HOLD, 0, 0);
		EXPECT_RET(fix_push(&f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 1);
		s = (struct sync){ .f = &f };
		ASSERT_EQ(pthread_create(&s.thread, NULL, fsync_thread, &s), 0);
		ASSERT_SOON(asleep_in(__atomic_load_n(&s.tid, __ATOMIC_SEQ_CST), SYS_fsync));
		EXPECT(STAYS_MS(pthread_tryjoin_np(s.thread, &ret) == EBUSY, 200));
		writes(&f, MINI_OK, 0, 0);
		pthread_join(s.thread, &ret);
		EXPECT_RET((long)ret, 0);
		EXPECT(stamped(f.store, 1));
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

TEST(write_while_under_writeback)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		stamp(f.map + PAGE, 1);
		writes(&f, MINI_HOLD, 0, 0);
		EXPECT_RET(fix_push(&f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 1);
		/* Its bytes are copied: a writer need not wait for the answer. */
		stamp(f.map + PAGE, 2);
		EXPECT_EQ(STAT(f.id, f_wp), 2);
		EXPECT_EQ(STAT(f.id, dirty), PAGE);
		/* A clean neighbour in the chunk, too; and by pwrite. */
		poke(f.map + 2 * PAGE, 'n');
		EXPECT_RET(SYS(pwrite(f.fd, "p", 1, 3 * PAGE)), 1);
		EXPECT_EQ(STAT(f.id, dirty), 3 * PAGE);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_SOON(MINI_GET(f.m, held) == 0);
		/* The old bytes are durable, the page is dirty with new ones. */
		EXPECT_SOON(STAT(f.id, writeback) == 0);
		EXPECT(stamped(f.store + PAGE, 1));
		EXPECT_EQ(STAT(f.id, dirty), 3 * PAGE);
		mini_log_clear(f.m);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), 3 * PAGE);
		EXPECT(!memcmp(f.map, f.store, SIZE));
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

/* Written by threads all the time: no store of a page is ever left behind. */
struct writer {
	struct fix *f;
	int page;
	int stop;
	__u64 last;
	pthread_t thread;
};

static void *writer_thread(void *arg)
{
	struct writer *w = arg;
	__u64 *p = (__u64 *)(w->f->map + w->page * PAGE);

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED))
		__atomic_store_n(p, ++w->last, __ATOMIC_RELAXED);
	return NULL;
}

TEST(writers_against_fsync)
{
	struct region_conf conf = plain;
	struct writer w[3];
	struct fix f;
	__u64 seen, before, *p;
	int i, round;

	for_each_order(conf) {
		start(&f, &conf);
		for (i = 0; i < 3; i++) {
			w[i] = (struct writer){ .f = &f, .page = i * 3, .last = 1 };
			ASSERT_EQ(pthread_create(&w[i].thread, NULL, writer_thread, &w[i]), 0);
		}
		/* Until they have begun, the store's own bytes are larger. */
		for (i = 0; i < 3; i++) {
			p = (__u64 *)(f.map + w[i].page * PAGE);
			ASSERT_SOON(__atomic_load_n(p, __ATOMIC_RELAXED) < 1ull << 40);
		}
		p = (__u64 *)f.map;
		for (round = 0; round < 30; round++) {
			before = __atomic_load_n(p, __ATOMIC_RELAXED);
			if (!EXPECT_RET(SYS(fsync(f.fd)), 0))
				break;
			memcpy(&seen, f.store, sizeof(seen));
			EXPECT_GE(seen, before);
		}
		for (i = 0; i < 3; i++)
			__atomic_store_n(&w[i].stop, 1, __ATOMIC_RELAXED);
		for (i = 0; i < 3; i++)
			pthread_join(w[i].thread, NULL);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		for (i = 0; i < 3; i++) {
			memcpy(&seen, f.store + w[i].page * PAGE, sizeof(seen));
			EXPECT_EQ(seen, w[i].last);
		}
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

/* The kernel's own flusher finds our pages. */
TEST(background_flusher)
{
	int expire = ASSERT_OK(sysctl_set("vm/dirty_expire_centisecs", 50));
	int period = ASSERT_OK(sysctl_set("vm/dirty_writeback_centisecs", 50));
	struct fix f;

	ASSERT_RET(fix_start(&f, &plain), 0);
	stamp(f.map, 1);
	EXPECT_SOON(fix_unclean(&f) == 0);
	EXPECT(stamped(f.store, 1));
	stop(&f);
	EXPECT_GE(sysctl_set("vm/dirty_expire_centisecs", expire), 0);
	EXPECT_GE(sysctl_set("vm/dirty_writeback_centisecs", period), 0);
}

/* While the store is out of reach nothing is pushed that nobody waits for. */
TEST(no_background_push_while_degraded)
{
	int expire = ASSERT_OK(sysctl_set("vm/dirty_expire_centisecs", 10));
	int period = ASSERT_OK(sysctl_set("vm/dirty_writeback_centisecs", 10));
	struct fix f;

	start(&f, &plain);
	stamp(f.map, 1);
	EXPECT(STAYS_MS(fix_unclean(&f) == PAGE && MINI_GET(f.m, writes) == 0, 700));
	EXPECT_RET(mini_state(f.m, f.id, RMEM_STATE_ACTIVE), 0);
	EXPECT_SOON(fix_unclean(&f) == 0);
	EXPECT(stamped(f.store, 1));
	stop(&f);
	EXPECT_GE(sysctl_set("vm/dirty_expire_centisecs", expire), 0);
	EXPECT_GE(sysctl_set("vm/dirty_writeback_centisecs", period), 0);
}

/* Nobody is there; who writes to resident pages is not stopped by that. */
TEST(write_everything_without_a_daemon)
{
	struct region_conf conf = { .size = 8 << 20 };
	struct fix f;
	size_t i;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		mini_kill(f.m);
		for (i = 0; i < conf.size; i += PAGE)
			stamp(f.map + i, i);
		EXPECT_EQ(STAT(f.id, dirty), conf.size);
		ASSERT_RET(mini_start(f.m), 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(!memcmp(f.map, f.store, conf.size));
		stop(&f);
	}
}

/*
 * Errors
 */

TEST(fsync_tells_the_errno)
{
	static const int errnos[] = { ENOSPC, EIO, EROFS, ESTALE };
	struct region_conf conf = plain;
	struct fix f;
	size_t i;

	for_each_order(conf) {
		for (i = 0; i < ARRAY_SIZE(errnos); i++) {
			start(&f, &conf);
			context("order %d %s", conf.order, strerrorname_np(errnos[i]));
			stamp(f.map + PAGE, 1);
			stamp(f.map + 5 * CHUNK, 2);
			writes(&f, MINI_FAIL, errnos[i], -1);
			EXPECT_RET(SYS(fsync(f.fd)), -errnos[i]);
			EXPECT_EQ(STAT(f.id, dirty), 2 * PAGE);
			EXPECT_EQ(STAT(f.id, writeback), 0);
			EXPECT_EQ(pattern_diff(f.store, 0, SIZE), -1);
			EXPECT_EQ(STAT(f.id, pushed), 0);
			EXPECT_GE(STAT(f.id, errors), 1);
			/* As long as it is so, each fsync says so. */
			EXPECT_RET(SYS(fsync(f.fd)), -errnos[i]);
			EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), -errnos[i]);
			EXPECT(stamped(f.map + PAGE, 1));
			/* And then no more. */
			writes(&f, MINI_OK, 0, 0);
			EXPECT_RET(SYS(fsync(f.fd)), 0);
			EXPECT(stamped(f.store + PAGE, 1));
			EXPECT(stamped(f.store + 5 * CHUNK, 2));
			EXPECT_EQ(fix_unclean(&f), 0);
			stop(&f);
		}
	}
}

/* However fast the answers come: no fsync lies about one of them. */
TEST(fsync_never_lies)
{
	struct region_conf conf = plain;
	struct fix f;
	int i, k;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		for (i = 0; i < 200; i++) {
			bool full = i & 1;

			for (k = 0; k < 4; k++)
				poke(f.map + k * CHUNK, i);
			writes(&f, full ? MINI_FAIL : MINI_OK, ENOSPC, -1);
			if (!EXPECT_RET(SYS(fsync(f.fd)), full ? -ENOSPC : 0))
				break;
			if (!EXPECT_EQ(fix_unclean(&f), full ? 4 * PAGE : 0))
				break;
			if (full)
				continue;
			for (k = 0; k < 4; k++)
				EXPECT_EQ(f.store[k * CHUNK], i & 0xff);
		}
		stop(&f);
	}
}

/* A push in the background fails: the next fsync tries again, and decides. */
TEST(push_fails_then_fsync_succeeds)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		writes(&f, MINI_FAIL, ENOSPC, -1);
		EXPECT_RET(fix_push(&f), 0);
		EXPECT_SOON(MINI_GET(f.m, writes) >= 1 && MINI_GET(f.m, held) == 0);
		EXPECT_SOON(STAT(f.id, dirty) == PAGE);
		EXPECT_EQ(pattern_diff(f.store, 0, SIZE), -1);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(f.store, 1));
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

/* Some of the pages reach the store, others do not. */
TEST(partly_durable)
{
	struct region_conf conf = plain;
	struct fix f;
	int i;

	for_each_order(conf) {
		start(&f, &conf);
		for (i = 0; i < CHUNKS; i++)
			stamp(f.map + i * CHUNK, i);
		writes(&f, MINI_FAIL, ENOSPC, 4);
		EXPECT_RET(SYS(fsync(f.fd)), -ENOSPC);
		EXPECT_EQ(STAT(f.id, writeback), 0);
		EXPECT_EQ(STAT(f.id, dirty) + STAT(f.id, pushed), CHUNKS * PAGE);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		for (i = 0; i < CHUNKS; i++)
			EXPECT(stamped(f.store + i * CHUNK, i));
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

TEST(eagain_is_tried_again)
{
	struct region_conf conf = plain;
	struct fix f;
	__u64 seen;

	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		stamp(f.map + CHUNK, 2);
		writes(&f, MINI_FAIL, EAGAIN, 3);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(MINI_GET(f.m, write_fails), 0);
		EXPECT(stamped(f.store, 1));
		EXPECT(stamped(f.store + CHUNK, 2));
		EXPECT_EQ(fix_unclean(&f), 0);
		/* In the background nobody waits, nobody is told. */
		stamp(f.map, 3);
		writes(&f, MINI_FAIL, EAGAIN, -1);
		seen = MINI_GET(f.m, writes);
		EXPECT_RET(fix_push(&f), 0);
		EXPECT_SOON(MINI_GET(f.m, writes) > seen && MINI_GET(f.m, held) == 0);
		EXPECT_SOON(STAT(f.id, dirty) == PAGE);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(f.store, 3));
		stop(&f);
	}
}

/*
 * Deadlines
 */

TEST(sync_timeout)
{
	struct region_conf conf = plain;
	long long since;
	struct fix f;

	conf.sync_ms = 200;
	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		writes(&f, MINI_HOLD, 0, 0);
		since = now_ms();
		EXPECT_RET(SYS(fsync(f.fd)), -EIO);
		EXPECT_GE(now_ms() - since, 150);
		EXPECT_SOON(STAT(f.id, dirty) == PAGE && STAT(f.id, writeback) == 0);
		EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), -EIO);
		EXPECT_RET(region_set(f.id, 30000, 60000, RMEM_ON_LOSS_WAIT), 0);
		/* Newer bytes; then the answers that nobody waits for any more. */
		stamp(f.map, 2);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_SOON(MINI_GET(f.m, held) == 0);
		EXPECT_GE(MINI_GET(f.m, unknown), 1);
		EXPECT_EQ(STAT(f.id, dirty), PAGE);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(f.store, 2));
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

/* On average they end in time; a single one may fall into a pause of the host's. */
#define MANY_SYNC_MS 500
#define MANY_SYNCS 4

static int do_fsyncs(void *arg)
{
	struct fix *f = arg;
	long long begin = now_ms();
	int i;

	for (i = 0; i < MANY_SYNCS; i++)
		if (!fsync(f->fd))
			return 1;
	return now_ms() - begin > 5 * MANY_SYNCS * MANY_SYNC_MS / 2 * harness_scale() ? 2 : 0;
}

/* Many who sync the same pages push them for each other, and no later. */
TEST(sync_timeout_of_many)
{
	struct region_conf conf = plain;
	pid_t pids[8];
	struct fix f;
	size_t i;

	conf.sync_ms = MANY_SYNC_MS;
	for_each_order(conf) {
		start(&f, &conf);
		for (i = 0; i < CHUNKS; i++)
			stamp(f.map + i * CHUNK, i);
		writes(&f, MINI_HOLD, 0, 0);
		for (i = 0; i < ARRAY_SIZE(pids); i++)
			pids[i] = spawn(do_fsyncs, &f);
		for (i = 0; i < ARRAY_SIZE(pids); i++)
			EXPECT_EQ(reap(pids[i], 20000), 0);
		EXPECT_RET(region_set(f.id, 30000, 60000, RMEM_ON_LOSS_WAIT), 0);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		for (i = 0; i < CHUNKS; i++)
			EXPECT(stamped(f.store + i * CHUNK, i));
		stop(&f);
	}
}

static void *write_and_sync(void *arg)
{
	struct fix *f = arg;
	int round;

	for (round = 0; round < 200; round++) {
		f->map[round % PAGES * PAGE] = round;
		EXPECT_RET(SYS(fsync(f->fd)), 0);
	}
	return NULL;
}

/* Each finds pages that others are just writing, waits for that, and finds them anew. */
TEST(syncs_that_wait_for_each_other)
{
	pthread_t threads[16];
	struct fix f;
	size_t i;

	start(&f, &plain);
	load_all(&f);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, write_and_sync, &f), 0);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	stop(&f);
}

/* Nobody serves the region at all: the same clock. */
TEST(sync_timeout_without_a_daemon)
{
	struct region_conf conf = plain;
	struct fix f;

	conf.sync_ms = 200;
	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		mini_kill(f.m);
		EXPECT_RET(SYS(fsync(f.fd)), -EIO);
		EXPECT_SOON(STAT(f.id, dirty) == PAGE && STAT(f.id, writeback) == 0);
		poke(f.map + 1, 'w');
		EXPECT_RET(region_set(f.id, 30000, 60000, RMEM_ON_LOSS_WAIT), 0);
		EXPECT_RET(mini_start(f.m), 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(!memcmp(f.map, f.store, PAGE));
		stop(&f);
	}
}

static int do_fsync(void *arg)
{
	struct fix *f = arg;

	return fsync(f->fd) != 0;
}

static int do_msync(void *arg)
{
	struct fix *f = arg;

	return msync(f->map, SIZE, MS_SYNC) != 0;
}

static int do_punch(void *arg)
{
	struct fix *f = arg;

	return region_punch(f->fd, 4 * CHUNK, CHUNK) != 0;
}

/*
 * What is written while its range is being punched, and reaches the store before the
 * zeros do, is not durable then: they are about to take it away.
 */
TEST(write_while_being_punched)
{
	struct region_conf conf = plain;
	pid_t punch, sync;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		writes(&f, MINI_HOLD_ZERO, 0, 0);
		punch = spawn(do_punch, &f);
		ASSERT_SOON(MINI_GET(f.m, zeros) == 1);
		stamp(f.map + 4 * CHUNK + PAGE, 7);
		sync = spawn(do_fsync, &f);
		ASSERT_SOON(stamped(f.store + 4 * CHUNK + PAGE, 7));
		writes(&f, MINI_OK, 0, 0);
		EXPECT_EQ(reap(punch, 20000), 0);
		EXPECT_EQ(reap(sync, 20000), 0);
		EXPECT_EQ(fix_unclean(&f), 0);
		EXPECT(stamped(f.store + 4 * CHUNK + PAGE, 7));
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		EXPECT(stamped(f.map + 4 * CHUNK + PAGE, 7));
		EXPECT_EQ(f.map[4 * CHUNK], 0);
		stop(&f);
	}
}

static int do_dsync_pwrite(void *arg)
{
	struct fix *f = arg;
	int fd = region_open(f->name, O_RDWR | O_DSYNC);

	return pwrite(fd, "x", 1, 5 * CHUNK) != 1;
}

static const struct {
	const char *name;
	int (*fn)(void *arg);
} waits[] = {
	{ "fsync", do_fsync },
	{ "msync", do_msync },
	{ "punch", do_punch },
	{ "pwrite O_DSYNC", do_dsync_pwrite },
};

TEST(sigkill_while_syncing)
{
	struct region_conf conf = plain;
	struct fix f;
	int status;
	size_t i;
	pid_t pid;

	conf.sync_ms = 600000;
	for_each_order(conf) {
		for (i = 0; i < ARRAY_SIZE(waits); i++) {
			start(&f, &conf);
			context("%s order %d", waits[i].name, conf.order);
			stamp(f.map, 1);
			writes(&f, MINI_HOLD, 0, 0);
			pid = spawn(waits[i].fn, &f);
			ASSERT_SOON(MINI_GET(f.m, writes) + MINI_GET(f.m, zeros) >= 1);
			EXPECT(STAYS_MS(waitpid(pid, NULL, WNOHANG) == 0, 100));
			kill(pid, SIGKILL);
			/* nothing else would end it in time */
			status = reap(pid, 20000);
			EXPECT(status >= 0 && WIFSIGNALED(status) &&
			       WTERMSIG(status) == SIGKILL);
			writes(&f, MINI_OK, 0, 0);
			EXPECT_RET(SYS(fsync(f.fd)), 0);
			EXPECT(stamped(f.store, 1));
			stop(&f);
		}
	}
}

static int do_sync(void *arg)
{
	(void)arg;
	sync();
	return 0;
}

static int do_syncfs(void *arg)
{
	struct fix *f = arg;
	int fd = frontend_open(FE_FILE, f->name, O_RDWR);

	ASSERT_GE(fd, 0);
	syncfs(fd);
	syncfs(f->fd);
	return 0;
}

/* These wait in the kernel's own code: no longer than the deadline. */
TEST(sync_ends)
{
	struct region_conf conf = plain;
	struct fix f;

	ASSERT(rmemfs_mount());
	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		EXPECT_EQ(reap(spawn(do_sync, &f), 20000), 0);
		stamp(f.map, 2);
		EXPECT_EQ(reap(spawn(do_syncfs, &f), 20000), 0);
		EXPECT_RET(region_set(f.id, 30000, 300, RMEM_ON_LOSS_WAIT), 0);
		writes(&f, MINI_HOLD, 0, 0);
		stamp(f.map, 3);
		EXPECT_EQ(reap(spawn(do_sync, &f), 20000), 0);
		stamp(f.map, 4);
		EXPECT_EQ(reap(spawn(do_syncfs, &f), 20000), 0);
		EXPECT_GE(fix_unclean(&f), PAGE);
		EXPECT_RET(region_set(f.id, 30000, 60000, RMEM_ON_LOSS_WAIT), 0);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(f.store, 4));
		stop(&f);
	}
}

/*
 * Counters and eviction
 */

TEST(info_counts)
{
	struct region_conf conf = plain;
	struct rmem_ioc_info info;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		ASSERT_RET(region_info(f.fd, &info), 0);
		EXPECT_EQ(info.resident_bytes + info.dirty_bytes + info.writeback_bytes +
			  info.fetched_bytes + info.pushed_bytes, 0);
		peek(f.map);
		stamp(f.map + 2 * CHUNK, 1);
		stamp(f.map + 2 * CHUNK + PAGE, 1);
		ASSERT_RET(region_info(f.fd, &info), 0);
		EXPECT_EQ(info.resident_bytes, 2 * CHUNK);
		EXPECT_EQ(info.fetched_bytes, 2 * CHUNK);
		EXPECT_EQ(info.dirty_bytes, 2 * PAGE);
		EXPECT_EQ(info.writeback_bytes, 0);
		writes(&f, MINI_HOLD, 0, 0);
		EXPECT_RET(fix_push(&f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 1);
		ASSERT_RET(region_info(f.fd, &info), 0);
		EXPECT_EQ(info.dirty_bytes, 0);
		EXPECT_EQ(info.writeback_bytes, 2 * PAGE);
		EXPECT_EQ(info.pushed_bytes, 0);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_SOON(fix_unclean(&f) == 0 && STAT(f.id, pushed) == 2 * PAGE);
		ASSERT_RET(region_info(f.fd, &info), 0);
		EXPECT_EQ(info.pushed_bytes, 2 * PAGE);
		/* Since the region was made: dropping takes nothing back. */
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		ASSERT_RET(region_info(f.fd, &info), 0);
		EXPECT_EQ(info.resident_bytes, 0);
		EXPECT_EQ(info.fetched_bytes, 2 * CHUNK);
		EXPECT_EQ(info.pushed_bytes, 2 * PAGE);
		stop(&f);
	}
}

TEST(drop_evicts_what_is_clean)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		stamp(f.map + CHUNK, 1);
		stamp(f.map + CHUNK + 5 * PAGE, 2);
		EXPECT_EQ(STAT(f.id, resident), SIZE);
		mini_log_clear(f.m);
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		/* A folio is dirty as a whole, its bytes are not. */
		EXPECT_LE(STAT(f.id, resident), conf.order ? CHUNK : 2 * PAGE);
		EXPECT_GE(STAT(f.id, resident), 2 * PAGE);
		EXPECT_EQ(STAT(f.id, dirty), 2 * PAGE);
		EXPECT_EQ(MINI_GET(f.m, writes), 0);
		/* The mapping is as good as before. */
		EXPECT(stamped(f.map + CHUNK, 1));
		EXPECT(stamped(f.map + CHUNK + 5 * PAGE, 2));
		EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
		EXPECT_EQ(pattern_diff(f.map + CHUNK + PAGE, CHUNK + PAGE, 4 * PAGE), -1);
		EXPECT_EQ(pattern_diff(f.map + CHUNK + 6 * PAGE, CHUNK + 6 * PAGE,
				       SIZE - CHUNK - 6 * PAGE), -1);
		EXPECT_GE(mini_logged(f.m, RMEM_OP_FETCH, 0, SIZE), CHUNKS - 1);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(!memcmp(f.map, f.store, SIZE));
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		EXPECT_EQ(STAT(f.id, resident), 0);
		EXPECT(stamped(f.map + CHUNK, 1));
		stop(&f);
	}
}

TEST(drop_of_a_range)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		load_all(&f);
		EXPECT_RET(region_drop(f.fd, 2 * CHUNK, 3 * CHUNK), 0);
		EXPECT_EQ(STAT(f.id, resident), SIZE - 3 * CHUNK);
		mini_log_clear(f.m);
		load_all(&f);
		EXPECT_EQ(mini_logged_bytes(f.m, RMEM_OP_FETCH), 3 * CHUNK);
		EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, 2 * CHUNK, 3 * CHUNK), 3);
		stop(&f);
	}
}

/* Under writeback a page is not durable yet: it stays. */
TEST(drop_while_under_writeback)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		stamp(f.map, 1);
		writes(&f, MINI_HOLD, 0, 0);
		EXPECT_RET(fix_push(&f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 1);
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		EXPECT(stamped(f.map, 1));
		EXPECT_EQ(STAT(f.id, writeback), PAGE);
		/* It fails, is dirty, and dropping does not touch it. */
		writes(&f, MINI_FAIL, EIO, -1);
		EXPECT_SOON(STAT(f.id, dirty) == PAGE);
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		EXPECT(stamped(f.map, 1));
		writes(&f, MINI_OK, 0, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(f.store, 1));
		stop(&f);
	}
}

/* Dropping and writing at the same time loses nothing. */
struct dropper {
	struct fix *f;
	int stop;
};

static void *drop_thread(void *arg)
{
	struct dropper *d = arg;

	while (!__atomic_load_n(&d->stop, __ATOMIC_RELAXED)) {
		EXPECT_RET(region_drop(d->f->fd, 0, 0), 0);
		EXPECT_RET(SYS(fsync(d->f->fd)), 0);
	}
	return NULL;
}

TEST(drop_against_writes)
{
	struct region_conf conf = plain;
	unsigned int seed = harness_seed();
	__u64 tag[PAGES];
	struct fix f;
	struct dropper d = { .f = &f };
	pthread_t t;
	int i;

	for_each_order(conf) {
		start(&f, &conf);
		memset(tag, 0, sizeof(tag));
		d.stop = 0;
		ASSERT_EQ(pthread_create(&t, NULL, drop_thread, &d), 0);
		for (i = 1; i <= 500; i++) {
			int p = rand_r(&seed) % PAGES;

			if (tag[p] && !EXPECT(stamped(f.map + p * PAGE, tag[p])))
				break;
			if (!tag[p] && !EXPECT_EQ(pattern_diff(f.map + p * PAGE,
							       p * PAGE, PAGE), -1))
				break;
			stamp(f.map + p * PAGE, i);
			tag[p] = i;
		}
		__atomic_store_n(&d.stop, 1, __ATOMIC_RELAXED);
		pthread_join(t, NULL);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		for (i = 0; i < PAGES; i++)
			if (tag[i])
				EXPECT(stamped(f.store + i * PAGE, tag[i]));
		EXPECT(!memcmp(f.map, f.store, SIZE));
		stop(&f);
	}
}

/*
 * What is not durable: RMEM_IOC_UNSAFE
 */

TEST(unsafe_runs)
{
	static const int written[] = { 0, 1, 3, 16, 17, 31, 32, PAGES - 1 };
	struct region_conf conf = plain;
	struct rmem_run runs[PAGES];
	__u64 offset;
	size_t i;

	for_each_order(conf) {
		struct fix f;

		/* the last page is a partial one */
		conf.size = SIZE - 100;
		start(&f, &conf);
		offset = 0;
		EXPECT_RET(region_unsafe(f.fd, &offset, runs, PAGES), 0);
		EXPECT_EQ(offset, conf.size);
		for (i = 0; i < ARRAY_SIZE(written); i++)
			f.map[written[i] * PAGE] = 1;
		offset = 0;
		ASSERT_RET(region_unsafe(f.fd, &offset, runs, PAGES), 5);
		EXPECT_EQ(offset, conf.size);
		EXPECT_EQ(runs[0].offset, 0);
		EXPECT_EQ(runs[0].length, 2 * PAGE);
		EXPECT_EQ(runs[1].offset, 3 * PAGE);
		EXPECT_EQ(runs[1].length, PAGE);
		EXPECT_EQ(runs[2].offset, 16 * PAGE);
		EXPECT_EQ(runs[2].length, 2 * PAGE);
		/* across chunks */
		EXPECT_EQ(runs[3].offset, 31 * PAGE);
		EXPECT_EQ(runs[3].length, 2 * PAGE);
		EXPECT_EQ(runs[4].offset, (PAGES - 1) * PAGE);
		EXPECT_EQ(runs[4].length, PAGE - 100);
		/* in small steps */
		for (i = 0, offset = 0; offset < conf.size; i++)
			ASSERT_RET(region_unsafe(f.fd, &offset, &runs[i], 1), 1);
		EXPECT_EQ(i, 5);
		EXPECT_EQ(runs[3].offset, 31 * PAGE);
		EXPECT_EQ(runs[3].length, 2 * PAGE);

		/* under way is not durable */
		writes(&f, MINI_HOLD, 0, 0);
		EXPECT_RET(fix_push(&f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) > 0);
		offset = 0;
		EXPECT_GE(region_unsafe(f.fd, &offset, runs, PAGES), 1);
		writes(&f, MINI_OK, 0, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		offset = 0;
		EXPECT_RET(region_unsafe(f.fd, &offset, runs, PAGES), 0);
		stop(&f);
	}
}

TEST(unsafe_arguments)
{
	struct rmem_run runs[2];
	__u64 offset = 1;
	struct fix f;

	start(&f, &plain);
	EXPECT_RET(region_unsafe(f.fd, &offset, runs, 1), -EINVAL);
	offset = 0;
	EXPECT_RET(region_unsafe(f.fd, &offset, runs, 0), -EINVAL);
	stamp(f.map, 1);
	EXPECT_RET(region_unsafe(f.fd, &offset, NULL, 1), -EFAULT);
	offset = SIZE + PAGE;
	EXPECT_RET(region_unsafe(f.fd, &offset, runs, 1), 0);
	stop(&f);
}
