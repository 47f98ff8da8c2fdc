// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that are writable before they are stored to: few faults for who writes in order,
 * nothing pushed that was not stored, and no store lost, however it becomes known.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (4 << 20)
#define PAGES (SIZE / PAGE)
/* A writer of so many pages in order has opened the folio behind them, and no more. */
#define RUN 16

static const struct region_conf plain = { .size = SIZE, .order = 4 };

static void start(struct fix *f, const struct region_conf *c)
{
	ASSERT_RET(fix_start(f, c), 0);
	ASSERT_RET(fix_quiet(f), 0);
	EXPECT_EQ(pattern_diff(f->map, 0, f->size), -1);
}

static void stop(struct fix *f)
{
	EXPECT_RET(fix_stop(f), 0);
	context(" ");
}

static unsigned char *page_of(struct fix *f, int page)
{
	return f->map + (size_t)page * PAGE;
}

static unsigned char *store_of(struct fix *f, int page)
{
	return f->store + (size_t)page * PAGE;
}

static void stamp_pages(struct fix *f, int from, int count, __u64 tag)
{
	int i;

	for (i = from; i < from + count; i++)
		stamp(page_of(f, i), tag + i);
}

/* Makes all durable; the store has what the mapping has. */
static void sync_all(struct fix *f)
{
	EXPECT_RET(SYS(fsync(f->fd)), 0);
	EXPECT_EQ(fix_unclean(f), 0);
	EXPECT(!memcmp(f->map, f->store, f->size));
}

/* The pages from RUN to 2 RUN are open, and known to be: a store there does not fault. */
static void open_second(struct fix *f)
{
	stamp_pages(f, 0, RUN, 1);
}

static unsigned char *map_again(struct fix *f)
{
	f->map = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	ASSERT(f->map != MAP_FAILED);
	return f->map;
}

/*
 * What it is for
 */

TEST(stores_in_order_fault_seldom)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		stamp_pages(&f, 0, PAGES, 1);
		/* pages that are folios of their own are not opened */
		if (conf.order)
			EXPECT_LE(STAT(f.id, f_wp), PAGES / 4);
		else
			EXPECT_EQ(STAT(f.id, f_wp), PAGES);
		EXPECT_EQ(STAT(f.id, dirty), SIZE);
		sync_all(&f);
		EXPECT_EQ(STAT(f.id, pushed), SIZE);
		stop(&f);
	}
}

/* Where one page was there before its chunk came, they are folios of their own. */
TEST(pages_alone_are_passed)
{
	const int every = 4 * CHUNK;
	struct fix f;
	int at;

	ASSERT_RET(fix_start(&f, &plain), 0);
	ASSERT_RET(fix_quiet(&f), 0);
	for (at = every; at < SIZE; at += every)
		ASSERT_RET(SYS(pwrite(f.fd, store_of(&f, at / PAGE), PAGE, at)), PAGE);
	sync_all(&f);
	stamp_pages(&f, 0, PAGES, 1);
	/* of four chunks they are one; without them, and were no others opened, it would be a half */
	EXPECT_LE(STAT(f.id, f_wp), PAGES * 3 / 8);
	EXPECT_LE(PAGES / 4, STAT(f.id, f_wp) + CHUNK / PAGE);
	sync_all(&f);
	stop(&f);
}

/* Pages of all files that are dirty, as the kernel's limits have it. */
static long kernel_dirty(void)
{
	FILE *file = fopen("/proc/vmstat", "r");
	long pages = -1;
	char line[80];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "nr_dirty %ld", &pages) == 1)
			break;
	if (file)
		fclose(file);
	return pages;
}

TEST(what_lies_behind_is_counted_and_stays_writable)
{
	struct fix f;
	long before;
	int pass;

	start(&f, &plain);
	before = kernel_dirty();
	for (pass = 0; pass < 3; pass++)
		stamp_pages(&f, 0, PAGES, pass);
	/* nobody has asked for the region's state, which would close all */
	EXPECT_GE(kernel_dirty() - before, PAGES / 2);
	EXPECT_LE(STAT(f.id, f_wp), PAGES / 4);
	EXPECT_EQ(STAT(f.id, dirty), SIZE);
	sync_all(&f);
	EXPECT_EQ(STAT(f.id, pushed), SIZE);
	stop(&f);
}

/* A writer that leaves pages out where they are open: those behind it are known to the page. */
TEST(what_lies_behind_with_gaps)
{
	int i, stored = 2 * RUN;
	struct fix f;

	start(&f, &plain);
	stamp_pages(&f, 0, 2 * RUN, 1);		/* the second folio without a fault */
	stamp_pages(&f, 2 * RUN, RUN, 1);	/* by faults; three more are open */
	stored += RUN;
	for (i = 3 * RUN; i < 6 * RUN; i += 2, stored++)
		stamp(page_of(&f, i), i);
	stamp_pages(&f, 6 * RUN, RUN, 1);	/* looks behind */
	stored += RUN;
	/* what was left out faults, or is open: known in either case */
	stamp(page_of(&f, 3 * RUN + 1), 7);
	stored++;
	EXPECT_EQ(STAT(f.id, dirty), (long long)stored * PAGE);
	mini_log_clear(f.m);
	sync_all(&f);
	EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), (__u64)stored * PAGE);
	stop(&f);
}

TEST(few_stores_open_nothing)
{
	struct region_conf conf = plain;
	struct fix f;
	int i;

	start(&f, &conf);
	/* short of a run, in the other direction, and every other page */
	stamp_pages(&f, 0, RUN - 1, 1);
	for (i = 4 * RUN - 1; i >= 2 * RUN; i--)
		stamp(page_of(&f, i), i);
	for (i = 8 * RUN; i < 16 * RUN; i += 2)
		stamp(page_of(&f, i), i);
	EXPECT_EQ(STAT(f.id, f_wp), RUN - 1 + 2 * RUN + 4 * RUN);
	sync_all(&f);
	EXPECT_EQ(STAT(f.id, pushed), (RUN - 1 + 2 * RUN + 4 * RUN) * PAGE);
	stop(&f);
}

TEST(what_was_opened_in_vain_is_clean)
{
	struct rmem_run runs[4];
	struct fix f;
	__u64 offset = 0;

	start(&f, &plain);
	open_second(&f);
	mini_log_clear(f.m);
	sync_all(&f);
	EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), RUN * PAGE);
	EXPECT_RET(region_unsafe(f.fd, &offset, runs, 4), 0);
	/* and is noticed again */
	stamp(page_of(&f, RUN + 3), 7);
	EXPECT_EQ(fix_unclean(&f), PAGE);
	sync_all(&f);
	EXPECT(stamped(store_of(&f, RUN + 3), 7));
	stop(&f);
}

/* What cannot be opened, since it is not mapped, is as it was, whoever else has a hold of it. */
TEST(what_is_held_and_cannot_be_opened_is_clean)
{
	struct iovec held;
	unsigned char *other;
	struct fix f;
	int ends[2];

	start(&f, &plain);
	other = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, f.fd, 0);
	ASSERT(other != MAP_FAILED);
	held = (struct iovec){ other + RUN * PAGE, PAGE };
	ASSERT_RET(SYS(pipe(ends)), 0);
	EXPECT_RET(SYS(vmsplice(ends[1], &held, 1, 0)), PAGE);
	EXPECT_RET(SYS(madvise(page_of(&f, RUN), RUN * PAGE, MADV_DONTNEED)), 0);
	open_second(&f);
	sync_all(&f);
	mini_log_clear(f.m);
	stamp(page_of(&f, RUN + 3), 7);
	sync_all(&f);
	EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), PAGE);
	close(ends[0]);
	close(ends[1]);
	munmap(other, SIZE);
	stop(&f);
}

TEST(what_is_dirty_is_told_to_the_page)
{
	struct rmem_run runs[4];
	struct fix f;
	__u64 offset = 0;

	start(&f, &plain);
	open_second(&f);
	stamp(page_of(&f, RUN + 2), 7);
	stamp(page_of(&f, RUN + 5), 7);
	EXPECT_EQ(STAT(f.id, f_wp), RUN);
	EXPECT_EQ(STAT(f.id, dirty), (RUN + 2) * PAGE);
	ASSERT_RET(region_unsafe(f.fd, &offset, runs, 4), 3);
	EXPECT_EQ(runs[0].length, RUN * PAGE);
	EXPECT_EQ(runs[1].offset, (RUN + 2) * PAGE);
	EXPECT_EQ(runs[2].offset, (RUN + 5) * PAGE);
	EXPECT_EQ(runs[1].length + runs[2].length, 2 * PAGE);
	mini_log_clear(f.m);
	sync_all(&f);
	EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), (RUN + 2) * PAGE);
	/* by the unsafe runs first: it is asked for without a STAT before */
	open_second(&f);
	stamp(page_of(&f, RUN + 9), 8);
	offset = 0;
	ASSERT_RET(region_unsafe(f.fd, &offset, runs, 4), 2);
	EXPECT_EQ(runs[1].offset, (RUN + 9) * PAGE);
	EXPECT_EQ(runs[1].length, PAGE);
	sync_all(&f);
	stop(&f);
}

TEST(a_push_is_exact)
{
	unsigned int seed = harness_seed();
	struct fix f;
	int round;

	start(&f, &plain);
	for (round = 0; round < 20; round++) {
		int from = rand_r(&seed) % (PAGES / 2), count = 1 + rand_r(&seed) % (PAGES / 2);

		context("round %d: %d pages from %d on", round, count, from);
		mini_log_clear(f.m);
		stamp_pages(&f, from, count, round * 1000);
		EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), 0);
		EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), (__u64)count * PAGE);
		sync_all(&f);
	}
	stop(&f);
}

/*
 * Stores that become known in another way
 */

TEST(unmapped_while_open)
{
	struct fix f;

	start(&f, &plain);
	open_second(&f);
	stamp(page_of(&f, RUN + 4), 7);
	EXPECT_RET(SYS(munmap(f.map, SIZE)), 0);
	EXPECT_GE(fix_unclean(&f), (RUN + 1) * PAGE);
	map_again(&f);
	EXPECT(stamped(page_of(&f, RUN + 4), 7));
	sync_all(&f);
	EXPECT(stamped(store_of(&f, RUN + 4), 7));
	stop(&f);
}

TEST(unmapped_in_part)
{
	struct fix f;

	start(&f, &plain);
	open_second(&f);
	stamp(page_of(&f, RUN + 4), 7);
	stamp(page_of(&f, RUN + 5), 8);
	EXPECT_RET(SYS(madvise(page_of(&f, RUN + 4), PAGE, MADV_DONTNEED)), 0);
	/* its neighbour is still writable, and stored to again */
	stamp(page_of(&f, RUN + 6), 9);
	sync_all(&f);
	EXPECT(stamped(store_of(&f, RUN + 4), 7));
	EXPECT(stamped(store_of(&f, RUN + 5), 8));
	EXPECT(stamped(store_of(&f, RUN + 6), 9));
	stop(&f);
}

TEST(dropped_while_open)
{
	struct fix f;

	start(&f, &plain);
	open_second(&f);
	stamp(page_of(&f, RUN + 4), 7);
	EXPECT_RET(region_drop(f.fd, 0, 0), 0);
	EXPECT(stamped(page_of(&f, RUN + 4), 7));
	stamp(page_of(&f, RUN + 5), 8);
	sync_all(&f);
	EXPECT(stamped(store_of(&f, RUN + 4), 7));
	EXPECT(stamped(store_of(&f, RUN + 5), 8));
	stop(&f);
}

TEST(protected_and_moved_by_the_program)
{
	unsigned char *to;
	struct fix f;

	start(&f, &plain);
	open_second(&f);
	stamp(page_of(&f, RUN + 4), 7);
	EXPECT_RET(SYS(mprotect(f.map, SIZE, PROT_READ)), 0);
	EXPECT_RET(SYS(mprotect(f.map, SIZE, PROT_READ | PROT_WRITE)), 0);
	stamp(page_of(&f, RUN + 5), 8);
	to = mremap(f.map, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
	ASSERT(to != MAP_FAILED);
	to = mremap(to, 2 * SIZE, SIZE, 0);
	ASSERT(to != MAP_FAILED);
	f.map = to;
	stamp(page_of(&f, RUN + 6), 9);
	EXPECT_GE(fix_unclean(&f), (RUN + 3) * PAGE);
	sync_all(&f);
	EXPECT(stamped(store_of(&f, RUN + 4), 7));
	EXPECT(stamped(store_of(&f, RUN + 5), 8));
	EXPECT(stamped(store_of(&f, RUN + 6), 9));
	stop(&f);
}

/* The kernel stores on behalf of others, by the page and not by its entry. */
static int write_into_parent(void *arg)
{
	struct fix *f = arg;
	struct iovec from = { "by another", 10 };
	struct iovec to = { page_of(f, RUN + 4) + 100, 10 };

	return process_vm_writev(getppid(), &from, 1, &to, 1, 0) == 10 ? 0 : 1;
}

TEST(written_by_reference)
{
	struct fix f;

	start(&f, &plain);
	open_second(&f);
	EXPECT_EQ(reap(spawn(write_into_parent, &f), 20000), 0);
	EXPECT_GE(fix_unclean(&f), (RUN + 1) * PAGE);
	sync_all(&f);
	EXPECT(!memcmp(store_of(&f, RUN + 4) + 100, "by another", 10));
	stop(&f);
}

TEST(written_by_other_means)
{
	unsigned char *other;
	struct fix f;

	start(&f, &plain);
	other = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	ASSERT(other != MAP_FAILED);
	open_second(&f);
	EXPECT_RET(SYS(pwrite(f.fd, "x", 1, (RUN + 3) * PAGE)), 1);
	stamp(other + (RUN + 4) * PAGE, 7);
	stamp(page_of(&f, RUN + 5), 8);
	EXPECT_RET(region_punch(f.fd, (RUN + 6) * PAGE, PAGE), 0);
	sync_all(&f);
	EXPECT_EQ(*store_of(&f, RUN + 3), 'x');
	EXPECT(stamped(store_of(&f, RUN + 4), 7));
	EXPECT(stamped(store_of(&f, RUN + 5), 8));
	EXPECT_EQ(*store_of(&f, RUN + 6), 0);
	munmap(other, SIZE);
	stop(&f);
}

static int store_and_exit(void *arg)
{
	struct fix *f = arg;
	int i;

	/* its page tables are its own, and empty */
	for (i = 0; i < 2 * RUN; i++)
		peek(page_of(f, i));
	open_second(f);
	stamp(page_of(f, RUN + 4), 7);
	return 0;
}

TEST(the_writer_is_gone)
{
	struct fix f;

	start(&f, &plain);
	EXPECT_EQ(reap(spawn(store_and_exit, &f), 20000), 0);
	sync_all(&f);
	EXPECT(stamped(store_of(&f, RUN + 4), 7));
	stop(&f);
}

TEST(the_daemon_is_gone)
{
	struct fix f;

	start(&f, &plain);
	mini_kill(f.m);
	stamp_pages(&f, 0, PAGES, 5);
	ASSERT_RET(mini_start(f.m), 0);
	sync_all(&f);
	stop(&f);
}

TEST(unmade_by_force)
{
	__u64 lost;
	struct fix f;

	start(&f, &plain);
	open_second(&f);
	stamp(page_of(&f, RUN + 4), 7);
	mini_kill(f.m);
	EXPECT_RET(region_del_force(f.id, &lost), 0);
	/* unmapping told of the folio, not of the page */
	EXPECT_GE(lost, (RUN + 1) * PAGE);
	EXPECT_LE(lost, 2 * RUN * PAGE);
	munmap(f.map, SIZE);
	close(f.fd);
}

/*
 * Limits
 */

/* Both are exact to the page: nothing is opened. */
TEST(with_a_dirty_limit_or_a_push_threshold)
{
	struct region_conf conf = plain;
	struct fix f;
	int i;

	for (i = 0; i < 2; i++) {
		conf.dirty_limit = i ? 0 : 2 << 20;
		conf.push_threshold = i ? 2 << 20 : 0;
		start(&f, &conf);
		stamp_pages(&f, 0, 4 * RUN, 1);
		EXPECT_EQ(STAT(f.id, f_wp), 4 * RUN);
		stop(&f);
	}
}

/* What was opened in vain is clean, and evicted like the rest. */
TEST(opened_and_evicted)
{
	struct region_conf conf = plain;
	struct fix f;
	int i, round;

	conf.resident_limit = 1 << 20;
	ASSERT_RET(fix_start(&f, &conf), 0);
	ASSERT_RET(fix_quiet(&f), 0);
	for (round = 0; round < 4; round++) {
		for (i = 0; i < 2 * RUN; i++)
			peek(page_of(&f, i));
		open_second(&f);
		stamp(page_of(&f, RUN + 4), round);
		for (i = 2 * RUN; i < PAGES; i++)
			peek(page_of(&f, i));
		EXPECT_LE(STAT(f.id, resident), conf.resident_limit);
		EXPECT(stamped(page_of(&f, RUN + 4), round));
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(store_of(&f, RUN + 4), round));
		EXPECT_EQ(fix_unclean(&f), 0);
	}
	stop(&f);
}

/*
 * At the same time
 */

struct walker {
	struct fix *f;
	int from, count;
	int stop;
	__u64 last;
	pthread_t thread;
};

/* The number of the round into page after page, so that all is opened again and again. */
static void *walk(void *arg)
{
	struct walker *w = arg;
	int i;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		w->last++;
		for (i = w->from; i < w->from + w->count; i++)
			__atomic_store_n((__u64 *)page_of(w->f, i), w->last, __ATOMIC_RELAXED);
	}
	return NULL;
}

#define WALKERS 3
#define WALKED (16 * RUN)

TEST(writers_in_order_against_fsync)
{
	struct region_conf conf = plain;
	struct walker w[WALKERS];
	__u64 before[WALKED], seen;
	struct fix f;
	int i, round;

	conf.size = WALKED * PAGE;
	start(&f, &conf);
	/* until they have begun, the store's own bytes are larger */
	for (i = 0; i < WALKED; i++)
		*(__u64 *)page_of(&f, i) = 0;
	for (i = 0; i < WALKERS; i++) {
		/* their ranges meet in the middle of a folio */
		w[i] = (struct walker){ .f = &f, .from = i * (WALKED / WALKERS),
					.count = WALKED / WALKERS };
		ASSERT_EQ(pthread_create(&w[i].thread, NULL, walk, &w[i]), 0);
	}
	for (round = 0; round < 15; round++) {
		for (i = 0; i < WALKED; i++)
			before[i] = __atomic_load_n((__u64 *)page_of(&f, i), __ATOMIC_RELAXED);
		if (round % 4 == 3)
			EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		if (!EXPECT_RET(SYS(fsync(f.fd)), 0))
			break;
		for (i = 0; i < WALKED; i++) {
			memcpy(&seen, store_of(&f, i), sizeof(seen));
			if (!EXPECT_GE(seen, before[i]))
				break;
		}
	}
	for (i = 0; i < WALKERS; i++)
		__atomic_store_n(&w[i].stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < WALKERS; i++)
		pthread_join(w[i].thread, NULL);
	sync_all(&f);
	stop(&f);
}

/* Runs of stores, and whatever else becomes of the pages: the store has them all. */
TEST(random_runs)
{
	unsigned int seed = harness_seed();
	unsigned char *was;
	struct fix f;
	int round, op, from, count;

	start(&f, &plain);
	for (round = 1; round <= 120; round++) {
		from = rand_r(&seed) % PAGES;
		count = 1 + rand_r(&seed) % (PAGES - from < 100 ? PAGES - from : 100);
		op = rand_r(&seed) % 12;
		context("round %d: %d, %d pages from %d on", round, op, count, from);
		switch (op) {
		case 0:
			EXPECT_RET(fix_push(&f), 0);
			break;
		case 1:
			EXPECT_RET(region_drop(f.fd, 0, 0), 0);
			break;
		case 2:
			EXPECT_RET(SYS(madvise(page_of(&f, from), (size_t)count * PAGE,
					       MADV_DONTNEED)), 0);
			break;
		case 3:
			was = f.map;
			map_again(&f);
			EXPECT_RET(SYS(munmap(was, SIZE)), 0);
			break;
		case 4:
			EXPECT_RET(SYS(mprotect(page_of(&f, from), (size_t)count * PAGE,
						PROT_READ)), 0);
			EXPECT_RET(SYS(mprotect(f.map, SIZE, PROT_READ | PROT_WRITE)), 0);
			break;
		case 5:
			EXPECT_RET(SYS(pwrite(f.fd, &round, sizeof(round),
					      (off_t)from * PAGE + 8)), sizeof(round));
			break;
		case 6:
			EXPECT_GE(STAT(f.id, dirty), 0);
			break;
		case 7:
			sync_all(&f);
			break;
		default:
			stamp_pages(&f, from, count, (__u64)round << 32);
		}
	}
	sync_all(&f);
	stop(&f);
}
