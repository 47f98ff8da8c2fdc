// SPDX-License-Identifier: GPL-2.0-only
/*
 * The resident limit is kept whatever the access, and spares what is in use; the
 * dirty limit stops the first write to a page, and no other; and who waits for
 * room waits as for a missing page.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (8u << 20)
#define CHUNKS (SIZE / CHUNK)
#define LIMIT (1u << 20)	/* the smallest there is */
#define LIMIT_CHUNKS (LIMIT / CHUNK)
#define LONG_MS 60000
#define SHORT_MS 200

static const struct region_conf resident = {
	.size = SIZE, .order = -1, .resident_limit = LIMIT,
};

static const struct region_conf dirty = {
	.size = SIZE, .order = -1, .dirty_limit = LIMIT,
};

static void start(struct fix *f, const struct region_conf *c)
{
	ASSERT_RET(fix_start(f, c), 0);
}

static void stop(struct fix *f)
{
	MINI_SET(f->m, write_mode, MINI_OK);
	EXPECT_RET(fix_stop(f), 0);
	context(" ");
}

/* One byte of each page, by the mapping. */
static void write_pages(struct fix *f, __u64 from, __u64 length, unsigned char value)
{
	__u64 at;

	for (at = from; at < from + length; at += PAGE)
		poke(f->map + at, value);
}

/* A task that does something that may wait, and how it ended. */
struct job {
	struct fix *f;
	__u64 at;
	pid_t pid;
};

static int job_read(void *arg)
{
	struct job *j = arg;

	return peek(j->f->map + j->at) == pattern(j->at) ? 0 : 100;
}

static int job_write(void *arg)
{
	struct job *j = arg;

	poke(j->f->map + j->at, 'w');
	return 0;
}

static int job_pread(void *arg)
{
	struct job *j = arg;
	unsigned char c;

	if (pread(j->f->fd, &c, 1, j->at) != 1)
		return errno;
	return c == pattern(j->at) ? 0 : 100;
}

static int job_pwrite(void *arg)
{
	struct job *j = arg;

	return pwrite(j->f->fd, "w", 1, j->at) == 1 ? 0 : errno;
}

static int (*const read_jobs[])(void *arg) = { job_read, job_pread };
static int (*const write_jobs[])(void *arg) = { job_write, job_pwrite };

static void job_start(struct job *j, struct fix *f, int (*fn)(void *arg), __u64 at)
{
	*j = (struct job){ .f = f, .at = at };
	j->pid = spawn(fn, j);
	ASSERT(j->pid > 0);
}

/* It waits, and goes on waiting. A write waits for the page first, and then for room. */
static void expect_waits(struct job *j)
{
	ASSERT_SOON(STAYS_MS(STAT(j->f->id, waiting) == 1, 150));
}

/*
 * Resident
 */

struct watch {
	struct fix *f;
	int over;
	long long most;
};

static void *watch_thread(void *arg)
{
	struct watch *w = arg;

	while (!__atomic_load_n(&w->over, __ATOMIC_SEQ_CST)) {
		long long now = STAT(w->f->id, resident);

		w->most = now > w->most ? now : w->most;
		nap_ms(5);
	}
	return NULL;
}

TEST(sequential_read_stays_within)
{
	struct region_conf conf = resident;
	struct watch w;
	pthread_t t;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		w = (struct watch){ .f = &f };
		ASSERT_EQ(pthread_create(&t, NULL, watch_thread, &w), 0);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		__atomic_store_n(&w.over, 1, __ATOMIC_SEQ_CST);
		pthread_join(t, NULL);
		EXPECT_LE(w.most, LIMIT);
		/* and what is allowed is used */
		EXPECT_GE(STAT(f.id, resident), LIMIT - CHUNK);
		EXPECT_GE(STAT(f.id, fetched), 2 * (SIZE - LIMIT));
		stop(&f);
	}
}

struct roam {
	struct fix *f;
	unsigned int seed;
	pthread_t thread;
};

/* Each thread writes pages of its own and reads anybody's. */
static void *roam_thread(void *arg)
{
	struct roam *r = arg;
	unsigned char *map = r->f->map;
	int i;

	for (i = 0; i < 250; i++) {
		__u64 page = rand_r(&r->seed) % (SIZE / PAGE);
		unsigned char got = peek(map + page * PAGE + 7), c;

		if (got != pattern(page * PAGE + 7) && got != 'r')
			FAIL("page %llu is %#x", page, got);
		if (pread(r->f->fd, &c, 1, page * PAGE + 7) != 1 ||
		    (c != pattern(page * PAGE + 7) && c != 'r'))
			FAIL("page %llu reads %#x", page, c);
		if (i % 4 == 0)
			poke(map + page * PAGE + 7, 'r');
	}
	return NULL;
}

TEST_SECONDS(threads_that_roam_stay_within, 120)
{
	struct region_conf conf = resident;
	unsigned int seed = harness_seed();
	struct roam r[4];
	struct watch w;
	pthread_t t;
	struct fix f;
	int i;

	for_each_order(conf) {
		start(&f, &conf);
		w = (struct watch){ .f = &f };
		ASSERT_EQ(pthread_create(&t, NULL, watch_thread, &w), 0);
		for (i = 0; i < 4; i++) {
			r[i] = (struct roam){ .f = &f, .seed = seed + i };
			ASSERT_EQ(pthread_create(&r[i].thread, NULL, roam_thread, &r[i]), 0);
		}
		for (i = 0; i < 4; i++)
			pthread_join(r[i].thread, NULL);
		__atomic_store_n(&w.over, 1, __ATOMIC_SEQ_CST);
		pthread_join(t, NULL);
		EXPECT_LE(w.most, LIMIT);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(fix_at_risk(&f), 0);
		stop(&f);
	}
}

/*
 * A chunk that is read all the time is not evicted in its turn, as often as the
 * others. These come in no order, so that the evictor's hand goes round and round.
 */
#define OFTEN (CHUNKS / LIMIT_CHUNKS / 2)
#define nth_other(i) ((i) * 37 % CHUNKS * CHUNK)

TEST(what_is_in_use_stays)
{
	struct region_conf conf = resident;
	struct fix f;
	__u64 i;

	for_each_order(conf) {
		start(&f, &conf);
		for (i = 1; i < CHUNKS; i++) {
			EXPECT_EQ(peek(f.map + 5), pattern(5));
			EXPECT_EQ(peek(f.map + nth_other(i)), pattern(nth_other(i)));
		}
		EXPECT_LE(mini_logged(f.m, RMEM_OP_FETCH, 0, CHUNK), OFTEN);
		/* by read(2) as well */
		mini_log_clear(f.m);
		for (i = 1; i < CHUNKS; i++) {
			unsigned char c[2];

			EXPECT_EQ(pread(f.fd, c, 1, 5), 1);
			EXPECT_EQ(pread(f.fd, c + 1, 1, nth_other(i)), 1);
			EXPECT_EQ(c[0], pattern(5));
			EXPECT_EQ(c[1], pattern(nth_other(i)));
		}
		EXPECT_LE(mini_logged(f.m, RMEM_OP_FETCH, 0, CHUNK), OFTEN);
		stop(&f);
	}
}

TEST(locked_pages_stay)
{
	struct region_conf conf = resident;
	unsigned char vec[4 * CHUNK / PAGE];
	struct fix f;
	size_t i;

	for_each_order(conf) {
		start(&f, &conf);
		ASSERT_RET(SYS(mlock(f.map + CHUNK, 4 * CHUNK)), 0);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, CHUNK, 4 * CHUNK), 4);
		ASSERT_RET(SYS(mincore(f.map + CHUNK, 4 * CHUNK, vec)), 0);
		for (i = 0; i < sizeof(vec); i++)
			EXPECT_EQ(vec[i] & 1, 1);
		/* Let go of, they are like all others. */
		ASSERT_RET(SYS(munlock(f.map + CHUNK, 4 * CHUNK)), 0);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		EXPECT_EQ(pattern_diff(f.map + 16 * CHUNK, 16 * CHUNK, SIZE - 16 * CHUNK), -1);
		EXPECT_GE(SIZE - STAT(f.id, resident), SIZE - LIMIT);
		stop(&f);
	}
}

/* All that may be resident is dirty, and the daemon does not answer. */
static void fill_with_dirty(struct fix *f)
{
	MINI_SET(f->m, write_mode, MINI_HOLD);
	write_pages(f, 0, LIMIT, 'd');
	EXPECT_EQ(fix_at_risk(f), LIMIT);
	EXPECT_EQ(STAT(f->id, resident), LIMIT);
}

TEST(nothing_to_evict_waits)
{
	struct region_conf conf = resident;
	struct job j;
	struct fix f;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		context("%s", i ? "pread" : "load");
		start(&f, &conf);
		fill_with_dirty(&f);
		job_start(&j, &f, read_jobs[i], 20 * CHUNK + 3);
		expect_waits(&j);
		EXPECT_LE(STAT(f.id, resident), LIMIT);
		/* What is there can be read and written all the same. */
		EXPECT_EQ(peek(f.map + PAGE), 'd');
		poke(f.map + PAGE, 'e');
		MINI_SET(f.m, write_mode, MINI_OK);
		EXPECT_EQ(reap(j.pid, 20000), 0);
		EXPECT_LE(STAT(f.id, resident), LIMIT);
		stop(&f);
	}
}

TEST(a_wait_for_residency_can_be_killed)
{
	struct region_conf conf = resident;
	struct job j;
	struct fix f;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		start(&f, &conf);
		fill_with_dirty(&f);
		job_start(&j, &f, read_jobs[i], 20 * CHUNK);
		expect_waits(&j);
		/* nothing else would ever end it */
		kill(j.pid, SIGKILL);
		EXPECT_EQ(reap(j.pid, 20000), SIGKILL);
		EXPECT_EQ(STAT(f.id, waiting), 0);
		stop(&f);
	}
}

/* Prefetches end where they would evict, unless they are worth it. */
TEST(prefetch_ends_at_the_limit)
{
	struct region_conf conf = resident;
	struct fix f;

	start(&f, &conf);
	EXPECT_RET(mini_prefetch(f.m, f.id, 0, SIZE), LIMIT_CHUNKS);
	EXPECT_SOON(STAT(f.id, resident) == LIMIT);
	EXPECT_RET(mini_prefetch(f.m, f.id, LIMIT, CHUNK), -EDQUOT);
	/* What the first one got is there. */
	mini_log_clear(f.m);
	EXPECT_EQ(pattern_diff(f.map, 0, LIMIT), -1);
	EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, 0, LIMIT), 0);
	MINI_SET(f.m, prefetch_flags, RMEM_PREFETCH_MAKE_ROOM);
	EXPECT_RET(mini_prefetch(f.m, f.id, LIMIT, 4 * CHUNK), 4);
	EXPECT_SOON(STAT(f.id, resident) == LIMIT);
	mini_log_clear(f.m);
	EXPECT_EQ(pattern_diff(f.map + LIMIT, LIMIT, 4 * CHUNK), -1);
	EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, LIMIT, 4 * CHUNK), 0);
	stop(&f);
}

/*
 * Dirty
 */

/* As many pages as may be at risk, and the daemon does not answer. */
static void reach_dirty_limit(struct fix *f)
{
	EXPECT_EQ(pattern_diff(f->map, 0, 2 * LIMIT), -1);
	MINI_SET(f->m, write_mode, MINI_HOLD);
	write_pages(f, 0, LIMIT, 'd');
	EXPECT_EQ(fix_at_risk(f), LIMIT);
	EXPECT_EQ(STAT(f->id, waiting), 0);
}

TEST(a_first_write_beyond_the_limit_waits)
{
	/* a resident page, and one that is not */
	const __u64 places[] = { LIMIT + PAGE, 4 * LIMIT };
	struct region_conf conf = dirty;
	struct job j;
	struct fix f;
	unsigned int i, p;

	for (i = 0; i < 4; i++) {
		p = i / 2;
		context("%s at %llu", i % 2 ? "pwrite" : "store", places[p]);
		start(&f, &conf);
		reach_dirty_limit(&f);
		job_start(&j, &f, write_jobs[i % 2], places[p]);
		expect_waits(&j);
		/* All that was written is writable, by store and by pwrite; */
		poke(f.map + 3 * PAGE, 'e');
		EXPECT_EQ(pwrite(f.fd, "f", 1, 4 * PAGE), 1);
		/* all can be read; */
		EXPECT_EQ(pattern_diff(f.map + LIMIT, LIMIT, LIMIT), -1);
		EXPECT_EQ(peek(f.map + 6 * LIMIT), pattern(6 * LIMIT));
		/* and it still waits. */
		EXPECT_SOON(STAT(f.id, waiting) == 1);
		MINI_SET(f.m, write_mode, MINI_OK);
		EXPECT_EQ(reap(j.pid, 20000), 0);
		EXPECT_EQ(peek(f.map + places[p]), 'w');
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(f.store[places[p]], 'w');
		EXPECT_EQ(f.store[3 * PAGE], 'e');
		EXPECT_EQ(f.store[4 * PAGE], 'f');
		stop(&f);
	}
}

/* In every state: quiesced, too, and there is nobody who could push. */
TEST(dirty_pages_stay_writable_without_a_daemon)
{
	struct region_conf conf = dirty;
	struct job j;
	struct fix f;
	__u64 at;

	start(&f, &conf);
	reach_dirty_limit(&f);
	mini_kill(f.m);
	ASSERT_SOON(STAT(f.id, state) == RMEM_STATE_QUIESCED);
	write_pages(&f, 0, LIMIT, 'e');
	job_start(&j, &f, job_write, LIMIT + PAGE);
	expect_waits(&j);
	MINI_SET(f.m, write_mode, MINI_OK);
	ASSERT_RET(mini_start(f.m), 0);
	EXPECT_EQ(reap(j.pid, 20000), 0);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	for (at = 0; at < LIMIT; at += PAGE)
		EXPECT_EQ(f.store[at], 'e');
	EXPECT_EQ(f.store[LIMIT + PAGE], 'w');
	stop(&f);
}

/* More data than the limit, as fast as the threads can. */
struct storm {
	struct fix *f;
	int n;
	pthread_t thread;
};

static void *storm_thread(void *arg)
{
	struct storm *s = arg;
	__u64 page;

	for (page = s->n; page < SIZE / PAGE; page += 4)
		stamp(s->f->map + page * PAGE, page + 1);
	return NULL;
}

TEST_SECONDS(more_writes_than_may_be_dirty, 120)
{
	struct region_conf conf = dirty;
	struct storm s[4];
	struct fix f;
	__u64 page;
	int i;

	for_each_order(conf) {
		start(&f, &conf);
		for (i = 0; i < 4; i++) {
			s[i] = (struct storm){ .f = &f, .n = i };
			ASSERT_EQ(pthread_create(&s[i].thread, NULL, storm_thread, &s[i]), 0);
		}
		while (pthread_tryjoin_np(s[0].thread, NULL)) {
			EXPECT_LE(fix_at_risk(&f), LIMIT);
			nap_ms(5);
		}
		for (i = 1; i < 4; i++)
			pthread_join(s[i].thread, NULL);
		EXPECT_LE(fix_at_risk(&f), LIMIT);
		EXPECT_SOON(STAT(f.id, pushed) >= SIZE - LIMIT);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		for (page = 0; page < SIZE / PAGE; page++)
			if (!stamped(f.store + page * PAGE, page + 1))
				FAIL("page %llu", page);
		stop(&f);
	}
}

/* Small enough a share is never waited for: it is pushed before. */
TEST(pushed_before_the_limit_is_reached)
{
	/* the kernel's own flusher would be soon enough */
	int period = ASSERT_OK(sysctl_set("vm/dirty_writeback_centisecs", 360000));
	struct region_conf conf = dirty;
	struct fix f;

	start(&f, &conf);
	EXPECT_EQ(pattern_diff(f.map, 0, LIMIT), -1);
	write_pages(&f, 0, LIMIT / 2, 'h');
	EXPECT_EQ(fix_at_risk(&f), LIMIT / 2);
	poke(f.map + LIMIT / 2, 'h');
	EXPECT_SOON(fix_at_risk(&f) < LIMIT / 2);
	stop(&f);
	EXPECT_GE(sysctl_set("vm/dirty_writeback_centisecs", period), 0);
}

/* A page's slot is free again when it is durable, however often it was written. */
TEST(rewrites_count_once)
{
	struct region_conf conf = dirty;
	struct job j;
	struct fix f;
	int round;

	start(&f, &conf);
	reach_dirty_limit(&f);
	/* they are being written, and dirty again */
	EXPECT_SOON(STAT(f.id, writeback) > 0);
	for (round = 0; round < 3; round++)
		write_pages(&f, 0, LIMIT, 'r' + round);
	MINI_SET(f.m, write_mode, MINI_OK);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(fix_at_risk(&f), 0);
	/* all of the limit is free, and no more than that */
	MINI_SET(f.m, write_mode, MINI_HOLD);
	write_pages(&f, LIMIT, LIMIT, 's');
	EXPECT_EQ(fix_at_risk(&f), LIMIT);
	job_start(&j, &f, job_write, 3 * LIMIT);
	expect_waits(&j);
	MINI_SET(f.m, write_mode, MINI_OK);
	EXPECT_EQ(reap(j.pid, 20000), 0);
	stop(&f);
}

/* Writes that come back: the pages are at risk as before, not twice. */
TEST(refused_writes_count_once)
{
	struct region_conf conf = dirty;
	struct fix f;

	start(&f, &conf);
	EXPECT_EQ(pattern_diff(f.map, 0, LIMIT), -1);
	MINI_SET(f.m, write_errno, ENOSPC);
	MINI_SET(f.m, write_fails, -1);
	MINI_SET(f.m, write_mode, MINI_FAIL);
	write_pages(&f, 0, LIMIT, 'd');
	EXPECT_RET(SYS(fsync(f.fd)), -ENOSPC);
	EXPECT_EQ(fix_at_risk(&f), LIMIT);
	write_pages(&f, 0, LIMIT, 'e');
	MINI_SET(f.m, write_mode, MINI_OK);
	/* else what it refuses at last is what the fsync hears of */
	ASSERT_RET(mini_settle(f.m), 0);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(fix_at_risk(&f), 0);
	write_pages(&f, LIMIT, LIMIT, 'g');
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(bytes_diff(f.store + LIMIT, 'g', 1), -1);
	stop(&f);
}

/* From now on nobody waits for long. Not while a test sets the scene itself. */
static void be_short(struct fix *f, __u32 on_loss)
{
	ASSERT_RET(region_set(f->id, SHORT_MS, LONG_MS, on_loss), 0);
}

static void be_patient(struct fix *f, __u32 on_loss)
{
	ASSERT_RET(region_set(f->id, LONG_MS, LONG_MS, on_loss), 0);
}

/* Some accesses cannot be repeated, so they wait with mmap_lock, for a bounded time. */
static int write_by_proc(void *arg)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	struct job *j = arg;

	return pwrite(fd, "w", 1, (off_t)(j->f->map + j->at)) == 1 ? 0 : errno;
}

TEST(a_write_that_cannot_wait_long)
{
	struct job j;
	struct fix f;

	start(&f, &dirty);
	reach_dirty_limit(&f);
	be_short(&f, RMEM_ON_LOSS_WAIT);
	job_start(&j, &f, write_by_proc, LIMIT);
	EXPECT_EQ(reap(j.pid, 20000), EIO << 8);
	EXPECT_EQ(STAT(f.id, waiting), 0);
	MINI_SET(f.m, write_mode, MINI_OK);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	job_start(&j, &f, write_by_proc, LIMIT);
	EXPECT_EQ(reap(j.pid, 20000), 0);
	EXPECT_EQ(peek(f.map + LIMIT), 'w');
	stop(&f);
}

/*
 * Policies, for either limit
 */

struct fullness {
	const char *name;
	const struct region_conf *conf;
	void (*fill)(struct fix *f);
	__u64 at;
	bool writes;
};

static const struct fullness fullnesses[] = {
	{ "resident", &resident, fill_with_dirty, 20 * CHUNK, false },
	{ "dirty", &dirty, reach_dirty_limit, LIMIT + PAGE, true },
};

/* @kind: 0 by the mapping, 1 by a system call */
static void job_at_limit(struct job *j, struct fix *f, const struct fullness *full, int kind)
{
	job_start(j, f, full->writes ? write_jobs[kind] : read_jobs[kind], full->at);
}

static void start_full(struct fix *f, const struct fullness *full, __u32 on_loss)
{
	start(f, full->conf);
	full->fill(f);
	be_short(f, on_loss);
}

TEST(on_loss_wait)
{
	struct job j;
	struct fix f;
	int i;

	for (i = 0; i < 4; i++) {
		const struct fullness *full = &fullnesses[i / 2];

		context("%s %d", full->name, i % 2);
		start_full(&f, full, RMEM_ON_LOSS_WAIT);
		job_at_limit(&j, &f, full, i % 2);
		ASSERT_SOON(STAT(f.id, errors) >= 1);	/* it is told, once */
		expect_waits(&j);
		be_patient(&f, RMEM_ON_LOSS_WAIT);
		MINI_SET(f.m, write_mode, MINI_OK);
		EXPECT_EQ(reap(j.pid, 20000), 0);
		EXPECT_EQ(STAT(f.id, errors), 1);
		stop(&f);
	}
}

/* It takes longer than the fault timeout, but something becomes durable all the time. */
TEST(a_slow_store_is_no_loss)
{
	const int fault_ms = 2000, pause_ms = 150;
	struct region_conf conf = dirty;
	long long begin, before;
	struct job j;
	struct fix f;

	conf.dirty_limit = 2 * LIMIT;
	start(&f, &conf);
	EXPECT_EQ(peek(f.map + 3 * LIMIT), pattern(3 * LIMIT));
	MINI_SET(f.m, write_mode, MINI_HOLD);
	write_pages(&f, 0, 2 * LIMIT, 'd');
	ASSERT_RET(region_set_limits(f.id, 0, LIMIT), 0);
	ASSERT_RET(region_set(f.id, fault_ms, LONG_MS, RMEM_ON_LOSS_ERROR), 0);
	begin = now_ms();
	job_start(&j, &f, job_write, 3 * LIMIT);
	ASSERT_SOON(STAT(f.id, waiting) == 1);
	for (before = fix_at_risk(&f); before > LIMIT; before = fix_at_risk(&f)) {
		EXPECT(STAYS_MS(STAT(f.id, waiting) == 1, pause_ms));
		MINI_SET(f.m, write_release, 1);
		ASSERT_SOON(fix_at_risk(&f) < before);
	}
	EXPECT_GE(now_ms() - begin, fault_ms);
	MINI_SET(f.m, write_mode, MINI_OK);
	EXPECT_EQ(reap(j.pid, 20000), 0);
	EXPECT_EQ(STAT(f.id, errors), 0);
	stop(&f);
}

/* Once it is known that nobody takes anything, nobody waits again. */
static void expect_refused(struct fix *f, const struct fullness *full, int kind, int want)
{
	struct job j;

	job_at_limit(&j, f, full, kind);
	EXPECT_EQ(reap(j.pid, 20000), want);
}

TEST(on_loss_error)
{
	struct fix f;
	int i, want;

	for (i = 0; i < 4; i++) {
		const struct fullness *full = &fullnesses[i / 2];

		context("%s %d", full->name, i % 2);
		want = i % 2 ? EIO << 8 : SIGBUS;
		start_full(&f, full, RMEM_ON_LOSS_ERROR);
		expect_refused(&f, full, i % 2, want);
		expect_refused(&f, full, i % 2, want);
		EXPECT_GE(STAT(f.id, errors), 2);
		/* Until something is durable. */
		be_patient(&f, RMEM_ON_LOSS_ERROR);
		MINI_SET(f.m, write_mode, MINI_OK);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		expect_refused(&f, full, i % 2, 0);
		stop(&f);
	}
}

TEST(on_loss_kill)
{
	struct fix f;
	int i;

	for (i = 0; i < 4; i++) {
		const struct fullness *full = &fullnesses[i / 2];

		context("%s %d", full->name, i % 2);
		start_full(&f, full, RMEM_ON_LOSS_KILL);
		expect_refused(&f, full, i % 2, SIGKILL);
		stop(&f);
	}
}

TEST(abort_ends_the_wait)
{
	struct job j;
	struct fix f;
	int i;

	for (i = 0; i < 4; i++) {
		const struct fullness *full = &fullnesses[i / 2];

		context("%s %d", full->name, i % 2);
		start_full(&f, full, RMEM_ON_LOSS_WAIT);
		job_at_limit(&j, &f, full, i % 2);
		expect_waits(&j);
		EXPECT_RET(region_abort(f.id), 0);
		EXPECT_EQ(reap(j.pid, 20000), i % 2 ? EIO << 8 : SIGBUS);
		MINI_SET(f.m, write_mode, MINI_OK);
		stop(&f);
	}
}

/* A failed region takes no more than it may have, and says so at once. */
TEST(a_failed_region_refuses)
{
	struct fix f;
	__u64 lost;
	int i;

	for (i = 0; i < 2; i++) {
		context("%d", i);
		start_full(&f, &fullnesses[1], RMEM_ON_LOSS_WAIT);
		EXPECT_RET(mini_state(f.m, f.id, RMEM_STATE_FAILED), 0);
		expect_refused(&f, &fullnesses[1], i, i ? ESTALE << 8 : SIGBUS);
		write_pages(&f, 0, LIMIT, 'e');
		EXPECT_RET(region_del_force(f.id, &lost), 0);
		EXPECT_EQ(lost, LIMIT);
		mini_kill(f.m);
		close(f.fd);
		munmap(f.map, SIZE);
	}
}

/*
 * The numbers
 */

TEST(limits_that_are_none)
{
	struct region_conf conf = { .size = SIZE, .order = -1, .chunk = 1 << 20 };
	struct region_stat st;
	__u32 id;

	conf.resident_limit = (8u << 20) - 1;	/* eight chunks, or no limit */
	EXPECT_RET(region_new(&conf, &id), -EINVAL);
	conf.resident_limit = 0;
	conf.dirty_limit = (8u << 20) - 1;
	EXPECT_RET(region_new(&conf, &id), -EINVAL);
	conf.chunk = PAGE;
	conf.dirty_limit = (1u << 20) - 1;
	EXPECT_RET(region_new(&conf, &id), -EINVAL);
	conf.dirty_limit = ~0ull;
	conf.resident_limit = 1u << 20;
	ASSERT_RET(region_new(&conf, &id), 0);
	EXPECT_RET(region_set_limits(id, 1, 0), -EINVAL);
	EXPECT_RET(region_set_limits(id, 0, PAGE), -EINVAL);
	ASSERT_RET(region_get(id, &st), 0);
	EXPECT_EQ(st.resident_limit, 1u << 20);
	EXPECT_EQ(st.dirty_limit, ~0ull);
	EXPECT_RET(region_set_limits(id, 3u << 20, 2u << 20), 0);
	ASSERT_RET(region_get(id, &st), 0);
	EXPECT_EQ(st.resident_limit, 3u << 20);
	EXPECT_EQ(st.dirty_limit, 2u << 20);
	EXPECT_RET(region_del(id), 0);
}

/*
 * The threshold
 */

/* What is written again meanwhile counts once; what is being pushed does not count. */
TEST(pushes_from_a_threshold_on)
{
	struct region_conf conf = { .size = SIZE, .order = -1, .push_threshold = LIMIT };
	int period = ASSERT_OK(sysctl_set("vm/dirty_writeback_centisecs", 360000));
	struct region_stat st;
	struct fix f;
	int i;

	start(&f, &conf);
	ASSERT_RET(region_get(f.id, &st), 0);
	EXPECT_EQ(st.push_threshold, LIMIT);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	for (i = 0; i < 3; i++)
		write_pages(&f, 0, LIMIT - PAGE, 'a' + i);
	EXPECT(STAYS_MS(fix_at_risk(&f) == (long long)LIMIT - PAGE, SHORT_MS));
	EXPECT_EQ(STAT(f.id, pushed), 0);

	/* The page that is one too many may be written while the others are taken. */
	MINI_SET(f.m, write_mode, MINI_HOLD);
	write_pages(&f, LIMIT - PAGE, PAGE, 'x');
	ASSERT_SOON(STAT(f.id, writeback) >= LIMIT - PAGE);
	write_pages(&f, LIMIT, LIMIT - 2 * PAGE, 'y');
	EXPECT(STAYS_MS(STAT(f.id, writeback) <= LIMIT, SHORT_MS));
	write_pages(&f, 2 * LIMIT, 2 * PAGE, 'z');
	ASSERT_SOON(STAT(f.id, writeback) >= 2 * LIMIT - PAGE);

	MINI_SET(f.m, write_mode, MINI_OK);
	ASSERT_SOON(STAT(f.id, pushed) >= 2 * LIMIT - PAGE);
	/* Without one all stays. */
	ASSERT_RET(region_set_threshold(f.id, 0), 0);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	write_pages(&f, 0, 4 * LIMIT, 'w');
	EXPECT(STAYS_MS(fix_at_risk(&f) == 4LL * LIMIT, SHORT_MS));
	EXPECT_GE(sysctl_set("vm/dirty_writeback_centisecs", period), 0);
	stop(&f);
}

/* Raised or taken away, a limit lets go of who waits; lowered, it is kept soon. */
TEST(limits_can_be_changed)
{
	struct job j;
	struct fix f;

	start_full(&f, &fullnesses[0], RMEM_ON_LOSS_WAIT);
	job_start(&j, &f, job_read, 20 * CHUNK);
	expect_waits(&j);
	EXPECT_RET(region_set_limits(f.id, 2 * LIMIT, 0), 0);
	EXPECT_EQ(reap(j.pid, 20000), 0);
	MINI_SET(f.m, write_mode, MINI_OK);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(pattern_diff(f.map + LIMIT, LIMIT, 3 * LIMIT), -1);
	EXPECT_EQ(STAT(f.id, resident), 2 * LIMIT);
	EXPECT_RET(region_set_limits(f.id, LIMIT, 0), 0);
	EXPECT_EQ(peek(f.map + 7 * LIMIT), pattern(7 * LIMIT));
	EXPECT_LE(STAT(f.id, resident), LIMIT);
	stop(&f);

	start_full(&f, &fullnesses[1], RMEM_ON_LOSS_WAIT);
	job_start(&j, &f, job_write, LIMIT);
	expect_waits(&j);
	EXPECT_RET(region_set_limits(f.id, 0, 0), 0);
	EXPECT_EQ(reap(j.pid, 20000), 0);
	stop(&f);
}
