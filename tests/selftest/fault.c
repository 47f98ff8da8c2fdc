// SPDX-License-Identifier: GPL-2.0-only
/*
 * Missing pages: one request per chunk, right bytes whoever asks and however,
 * and waits that can be killed and that end when the region's deadline says so.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define CHUNKS 32
#define SIZE (CHUNKS * CHUNK)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

static void start(struct fix *f, const struct region_conf *c)
{
	ASSERT_RET(fix_start(f, c), 0);
}

static void start_quiet(struct fix *f, const struct region_conf *c)
{
	ASSERT_RET(fix_start(f, c), 0);
	ASSERT_RET(fix_quiet(f), 0);
}

static void stop(struct fix *f)
{
	EXPECT_RET(fix_stop(f), 0);
}

static void hold(struct fix *f)
{
	MINI_SET(f->m, fetch_mode, MINI_HOLD);
}

static void release(struct fix *f)
{
	MINI_SET(f->m, fetch_mode, MINI_OK);
}

/* A chunk was asked for once, and as a whole. */
static void expect_once(struct fix *f, int chunk)
{
	__u32 i;

	EXPECT_EQ(mini_logged(f->m, RMEM_OP_FETCH, (__u64)chunk * CHUNK, CHUNK), 1);
	for (i = 0; i < f->m->nlog; i++) {
		if (f->m->log[i].op != RMEM_OP_FETCH ||
		    f->m->log[i].offset / CHUNK != (__u64)chunk)
			continue;
		EXPECT_EQ(f->m->log[i].offset % CHUNK, 0);
		EXPECT_EQ(f->m->log[i].length, CHUNK);
	}
}

struct touch {
	struct fix *f;
	size_t at;
	size_t len;
	pthread_t thread;
};

static void *touch_thread(void *arg)
{
	struct touch *t = arg;

	EXPECT_EQ(pattern_diff(t->f->map + t->at, t->at, t->len), -1);
	return NULL;
}

static void touch_start(struct touch *t, struct fix *f, size_t at, size_t len)
{
	t->f = f;
	t->at = at;
	t->len = len;
	ASSERT_EQ(pthread_create(&t->thread, NULL, touch_thread, t), 0);
}

static void touch_join(struct touch *t)
{
	pthread_join(t->thread, NULL);
}

/*
 * Requests
 */

TEST(one_request_per_chunk)
{
	struct touch t[CHUNK / PAGE];
	struct fix f;
	size_t i;

	start(&f, &plain);
	hold(&f);
	for (i = 0; i < ARRAY_SIZE(t); i++)
		touch_start(&t[i], &f, 3 * CHUNK + i * PAGE, PAGE);
	ASSERT_SOON(STAT(f.id, waiting) == (long long)ARRAY_SIZE(t));
	EXPECT_SOON(MINI_GET(f.m, fetches) == 1);
	release(&f);
	for (i = 0; i < ARRAY_SIZE(t); i++)
		touch_join(&t[i]);
	expect_once(&f, 3);
	EXPECT_EQ(MINI_GET(f.m, fetches), 1);
	EXPECT_EQ(STAT(f.id, waiting), 0);
	EXPECT_EQ(STAT(f.id, fetched), CHUNK);
	EXPECT_EQ(STAT(f.id, resident), CHUNK);
	EXPECT_GE(STAT(f.id, f_demand), 1);
	stop(&f);
}

TEST(every_page)
{
	struct region_conf conf = plain;
	struct fix f;
	int i;

	for (conf.order = -1; conf.order <= 4; conf.order++) {
		if (conf.order == 1)	/* order 1 is none on old kernels */
			continue;
		context("order %d", conf.order);
		start(&f, &conf);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		for (i = 0; i < CHUNKS; i++)
			expect_once(&f, i);
		EXPECT_EQ(MINI_GET(f.m, fetches), CHUNKS);
		EXPECT_EQ(STAT(f.id, resident), SIZE);
		EXPECT_EQ(STAT(f.id, fetched), SIZE);
		stop(&f);
	}
}

/* Of the mapped pages at @map, those that are parts of larger folios. */
static int compound_pages(const unsigned char *map, int pages)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	__u64 entry, f;
	int i, n = 0;

	for (i = 0; i < pages; i++) {
		ASSERT_EQ(pread(pagemap, &entry, 8, ((long)map / PAGE + i) * 8), 8);
		ASSERT(entry >> 63);	/* present */
		entry &= (1ull << 55) - 1;
		ASSERT_EQ(pread(flags, &f, 8, entry * 8), 8);
		n += !!(f & (1 << 15 | 1 << 16));	/* head, tail */
	}
	close(pagemap);
	close(flags);
	return n;
}

/* What other tests call "order 4" is so; a single one may be hard to get. */
TEST(folios_are_as_large_as_asked)
{
	struct region_conf conf = plain;
	struct fix f;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		if (conf.order)
			EXPECT_GT(compound_pages(f.map, SIZE / PAGE), SIZE / PAGE / 2);
		else
			EXPECT_EQ(compound_pages(f.map, SIZE / PAGE), 0);
		stop(&f);
	}
}

TEST(chunk_sizes)
{
	struct region_conf conf = { .size = 4 << 20, .order = -1 };
	struct fix f;

	for (conf.chunk = RMEM_CHUNK_MIN; conf.chunk <= RMEM_CHUNK_MAX; conf.chunk *= 8) {
		context("chunk %u", conf.chunk);
		start(&f, &conf);
		EXPECT_EQ(peek(f.map + conf.size / 2 + 17), pattern(conf.size / 2 + 17));
		EXPECT_EQ(MINI_GET(f.m, fetches), 1);
		EXPECT_EQ(MINI_GET(f.m, fetch_bytes), conf.chunk);
		EXPECT_EQ(pattern_diff(f.map, 0, conf.size), -1);
		EXPECT_EQ(MINI_GET(f.m, fetch_bytes), conf.size);
		stop(&f);
	}
	context("chunk 2 MiB, order 9");
	conf.chunk = RMEM_CHUNK_MAX;
	conf.order = 9;
	start(&f, &conf);
	EXPECT_EQ(pattern_diff(f.map, 0, conf.size), -1);
	memset(f.map + 3 * PAGE, 'h', PAGE);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(bytes_diff(f.store + 3 * PAGE, 'h', PAGE), -1);
	EXPECT_EQ(pattern_diff(f.store + 4 * PAGE, 4 * PAGE, conf.size - 4 * PAGE), -1);
	stop(&f);
}

static void *random_thread(void *arg)
{
	struct fix *f = arg;
	unsigned int seed = syscall(SYS_gettid);
	int i;

	for (i = 0; i < 300; i++) {
		size_t at = rand_r(&seed) % SIZE;

		if (!EXPECT_EQ(peek(f->map + at), pattern(at)))
			break;
	}
	return NULL;
}

TEST(random_touches)
{
	pthread_t t[4];
	struct fix f;
	size_t i;

	start(&f, &plain);
	for (i = 0; i < ARRAY_SIZE(t); i++)
		ASSERT_EQ(pthread_create(&t[i], NULL, random_thread, &f), 0);
	for (i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < CHUNKS; i++)
		EXPECT_LE(mini_logged(f.m, RMEM_OP_FETCH, i * CHUNK, CHUNK), 1);
	stop(&f);
}

TEST(request_says_who_and_where)
{
	struct fix f;

	start(&f, &plain);
	peek(f.map + 5 * CHUNK + 7 * PAGE + 11);
	ASSERT_EQ(f.m->nlog, 1);
	EXPECT_EQ(f.m->log[0].tid, syscall(SYS_gettid));
	EXPECT_EQ(f.m->log[0].demand / PAGE, (5 * CHUNK + 7 * PAGE) / PAGE);
	EXPECT_EQ(f.m->log[0].region_id, f.id);
	EXPECT_EQ(f.m->log[0].flags, 0);
	stop(&f);
}

TEST(answer_in_pieces)
{
	struct region_conf conf = plain;
	struct fix f;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		MINI_SET(f.m, fetch_piece, 3 * PAGE);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		EXPECT_EQ(MINI_GET(f.m, fetches), CHUNKS);
		stop(&f);
	}
}

/* Half of a chunk is there: what is missing comes, what is there stays. */
TEST(half_of_a_chunk_resident)
{
	struct region_conf conf = { .size = SIZE, .order = 0 };
	struct fix f;

	start_quiet(&f, &conf);
	EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
	memset(f.map + PAGE, 'd', 2 * PAGE);
	EXPECT_RET(region_drop(f.fd, 0, CHUNK), 0);
	EXPECT_EQ(STAT(f.id, resident), 2 * PAGE);
	/* The dirty pages are newer than the store. */
	EXPECT_EQ(pattern_diff(f.map, 0, PAGE), -1);
	EXPECT_EQ(bytes_diff(f.map + PAGE, 'd', 2 * PAGE), -1);
	EXPECT_EQ(pattern_diff(f.map + 3 * PAGE, 3 * PAGE, CHUNK - 3 * PAGE), -1);
	EXPECT_EQ(STAT(f.id, dirty), 2 * PAGE);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(bytes_diff(f.store + PAGE, 'd', 2 * PAGE), -1);
	stop(&f);
}

TEST(write_to_a_cold_page)
{
	struct region_conf conf = plain;
	struct fix f;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start_quiet(&f, &conf);
		poke(f.map + CHUNK + PAGE + 5, 'w');
		EXPECT_EQ(pattern_diff(f.map + CHUNK, CHUNK, PAGE + 5), -1);
		EXPECT_EQ(peek(f.map + CHUNK + PAGE + 5), 'w');
		EXPECT_EQ(pattern_diff(f.map + CHUNK + PAGE + 6, CHUNK + PAGE + 6,
				       CHUNK - PAGE - 6), -1);
		EXPECT_EQ(MINI_GET(f.m, fetches), 1);
		EXPECT_EQ(STAT(f.id, dirty), PAGE);
		stop(&f);
	}
}

TEST(prefetch)
{
	struct fix f;
	__u64 demand;

	start(&f, &plain);
	EXPECT_RET(mini_prefetch(f.m, f.id, 2 * CHUNK, 4 * CHUNK), 4);
	EXPECT_SOON(STAT(f.id, resident) == 4 * CHUNK);
	EXPECT_EQ(MINI_GET(f.m, prefetches), 4);
	EXPECT_EQ(MINI_GET(f.m, fetches), 4);
	demand = STAT(f.id, f_demand);
	EXPECT_EQ(pattern_diff(f.map + 2 * CHUNK, 2 * CHUNK, 4 * CHUNK), -1);
	EXPECT_EQ(MINI_GET(f.m, fetches), 4);
	EXPECT_EQ(STAT(f.id, f_demand), demand);
	EXPECT_SOON(STAT(f.id, fetched) == 4 * CHUNK);
	/* Nothing is fetched twice. */
	EXPECT_RET(mini_prefetch(f.m, f.id, 0, 8 * CHUNK), 4);
	stop(&f);
}

/* Somebody waits for a prefetch that is given up: it comes again, wanted. */
TEST(prefetch_given_up)
{
	struct touch t;
	struct fix f;

	start(&f, &plain);
	hold(&f);
	EXPECT_RET(mini_prefetch(f.m, f.id, 0, CHUNK), 1);
	ASSERT_SOON(MINI_GET(f.m, held) == 1);
	touch_start(&t, &f, 0, CHUNK);
	ASSERT_SOON(STAT(f.id, waiting) == 1);
	MINI_SET(f.m, fetch_errno, ECANCELED);
	MINI_SET(f.m, fetch_mode, MINI_FAIL);
	ASSERT_SOON(MINI_GET(f.m, fetches) >= 2);
	release(&f);
	touch_join(&t);
	EXPECT_EQ(f.m->log[0].flags, RMEM_REQ_PREFETCH);
	EXPECT_EQ(f.m->log[1].flags, RMEM_REQ_JOINED);
	EXPECT_EQ(f.m->log[1].cookie, f.m->log[0].cookie);
	stop(&f);
}

/* Bytes that are marked: the first use is told, once, with its place. */
TEST(marked_bytes_are_told_of)
{
	static unsigned char buf[CHUNK];
	struct region_conf conf = plain;
	struct rmem_request q;
	struct fix f = { 0 };
	struct chan c;

	conf.name = region_fresh_name();
	ASSERT_RET(region_new(&conf, &f.id), 0);
	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, f.id), 0);
	ASSERT_RET(chan_state(&c, f.id, RMEM_STATE_ACTIVE, ""), 0);
	f.fd = ASSERT_OK(region_open(conf.name, O_RDWR));
	f.map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, f.fd, 0);
	ASSERT(f.map != MAP_FAILED);
	EXPECT_RET(chan_prefetch(&c, f.id, 0, 3 * CHUNK, CHUNK), 1);
	ASSERT_EQ(chan_next(&c, &q, 20000), 1);
	pattern_fill(buf, 3 * CHUNK, CHUNK);
	EXPECT_RET(chan_fill(&c, q.cookie, 0, CHUNK, buf, RMEM_FILL_MARK), 0);
	EXPECT_EQ(chan_next(&c, &q, 0), 0);
	EXPECT_EQ(pattern_diff(f.map + 3 * CHUNK, 3 * CHUNK, CHUNK), -1);
	ASSERT_EQ(chan_next(&c, &q, 20000), 1);
	EXPECT_EQ(q.op, RMEM_OP_HIT);
	EXPECT_EQ(q.cookie, 0);
	EXPECT_EQ(q.region_id, f.id);
	EXPECT_EQ(q.demand_offset / CHUNK, 3);
	EXPECT_EQ(q.tid, syscall(SYS_gettid));
	EXPECT_EQ(pattern_diff(f.map + 3 * CHUNK, 3 * CHUNK, CHUNK), -1);
	EXPECT_EQ(chan_next(&c, &q, 0), 0);
	munmap(f.map, SIZE);
	close(f.fd);
	chan_close(&c);
	EXPECT_RET(region_del(f.id), 0);
}

/* Given up after half of it had come: the next answer starts at the start. */
TEST(prefetch_half_filled_and_given_up)
{
	static unsigned char buf[CHUNK];
	struct region_conf conf = plain;
	struct rmem_request q;
	struct fix f = { 0 };
	struct touch t;
	struct chan c;
	__u64 cookie;

	conf.name = region_fresh_name();
	ASSERT_RET(region_new(&conf, &f.id), 0);
	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, f.id), 0);
	ASSERT_RET(chan_state(&c, f.id, RMEM_STATE_ACTIVE, ""), 0);
	f.fd = ASSERT_OK(region_open(conf.name, O_RDWR));
	f.map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, f.fd, 0);
	ASSERT(f.map != MAP_FAILED);
	EXPECT_RET(chan_prefetch(&c, f.id, 0, 0, CHUNK), 1);
	ASSERT_EQ(chan_next(&c, &q, 20000), 1);
	EXPECT_EQ(q.flags, RMEM_REQ_PREFETCH);
	memset(buf, 0xbb, CHUNK);
	EXPECT_RET(chan_fill(&c, q.cookie, 0, CHUNK / 2, buf, 0), 0);
	touch_start(&t, &f, 0, CHUNK);
	ASSERT_SOON(STAT(f.id, waiting) == 1);
	EXPECT_RET(chan_complete(&c, &q.cookie, 1, ECANCELED), 0);
	/* It came once more when somebody wanted it, and again just now. */
	cookie = q.cookie;
	while (chan_next(&c, &q, 100)) {
		EXPECT_EQ(q.flags & RMEM_REQ_PREFETCH, 0);
		cookie = q.cookie;
	}
	pattern_fill(buf, 0, CHUNK);
	ASSERT_RET(chan_fill(&c, cookie, 0, CHUNK, buf, 0), 0);
	touch_join(&t);
	munmap(f.map, SIZE);
	close(f.fd);
	chan_close(&c);
	EXPECT_RET(region_del(f.id), 0);
}

/*
 * madvise, mlock
 */

static int advise_random(struct fix *f)
{
	return SYS(madvise(f->map, SIZE, MADV_RANDOM));
}

static int advise_sequential(struct fix *f)
{
	return SYS(madvise(f->map, SIZE, MADV_SEQUENTIAL));
}

static int advise_willneed(struct fix *f)
{
	return SYS(madvise(f->map, SIZE, MADV_WILLNEED));
}

static int advise_huge(struct fix *f)
{
	int ret = SYS(madvise(f->map, SIZE, MADV_HUGEPAGE));

	return ret == -EINVAL ? 0 : ret;	/* not in every kernel */
}

TEST(madvise_changes_no_request)
{
	static int (*const advise[])(struct fix *f) = {
		advise_random, advise_sequential, advise_willneed, advise_huge,
	};
	struct fix f;
	size_t i;
	int c;

	for (i = 0; i < ARRAY_SIZE(advise); i++) {
		context("advice %zu", i);
		start(&f, &plain);
		EXPECT_RET(advise[i](&f), 0);
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		for (c = 0; c < CHUNKS; c++)
			expect_once(&f, c);
		stop(&f);
	}
}

TEST(madvise_dontneed)
{
	struct fix f;

	start_quiet(&f, &plain);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	memset(f.map + PAGE, 'd', PAGE);
	EXPECT_RET(SYS(madvise(f.map, SIZE, MADV_DONTNEED)), 0);
	/* Unmapped, not dropped: the page cache has it all. */
	EXPECT_EQ(bytes_diff(f.map + PAGE, 'd', PAGE), -1);
	EXPECT_EQ(pattern_diff(f.map + 2 * PAGE, 2 * PAGE, SIZE - 2 * PAGE), -1);
	EXPECT_EQ(MINI_GET(f.m, fetches), CHUNKS);
	EXPECT_EQ(STAT(f.id, dirty), PAGE);
	EXPECT_RET(SYS(madvise(f.map, SIZE, MADV_PAGEOUT)), 0);
	EXPECT_EQ(bytes_diff(f.map + PAGE, 'd', PAGE), -1);
	EXPECT_EQ(pattern_diff(f.map + 2 * PAGE, 2 * PAGE, SIZE - 2 * PAGE), -1);
	/* Holes are made by punching, not by the way. */
	EXPECT(madvise(f.map, CHUNK, MADV_FREE) < 0);
	stop(&f);
}

TEST(madvise_populate)
{
	struct fix f;

	start_quiet(&f, &plain);
	EXPECT_RET(SYS(madvise(f.map, SIZE / 2, MADV_POPULATE_READ)), 0);
	EXPECT_EQ(STAT(f.id, resident), SIZE / 2);
	EXPECT_EQ(STAT(f.id, dirty), 0);
	EXPECT_RET(SYS(madvise(f.map + SIZE / 2, SIZE / 2, MADV_POPULATE_WRITE)), 0);
	EXPECT_EQ(STAT(f.id, resident), SIZE);
	EXPECT_EQ(STAT(f.id, dirty), SIZE / 2);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	EXPECT_EQ(MINI_GET(f.m, fetches), CHUNKS);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(pattern_diff(f.store, 0, SIZE), -1);
	stop(&f);
}

TEST(populate_fails)
{
	struct fix f;

	start(&f, &plain);
	MINI_SET(f.m, fetch_errno, EIO);
	MINI_SET(f.m, fetch_mode, MINI_FAIL);
	EXPECT(madvise(f.map, CHUNK, MADV_POPULATE_READ) < 0);
	EXPECT(mlock(f.map, CHUNK) < 0);
	release(&f);
	munlock(f.map, CHUNK);
	EXPECT_RET(SYS(madvise(f.map, CHUNK, MADV_POPULATE_READ)), 0);
	stop(&f);
}

TEST(mmap_populate)
{
	unsigned char *p;
	struct fix f;

	start(&f, &plain);
	p = mmap(NULL, SIZE, PROT_READ, MAP_SHARED | MAP_POPULATE, f.fd, 0);
	ASSERT(p != MAP_FAILED);
	EXPECT_EQ(STAT(f.id, resident), SIZE);
	EXPECT_EQ(pattern_diff(p, 0, SIZE), -1);
	munmap(p, SIZE);
	stop(&f);
}

TEST(mlock_cold)
{
	struct fix f;

	start(&f, &plain);
	EXPECT_RET(SYS(mlock(f.map, SIZE)), 0);
	EXPECT_EQ(STAT(f.id, resident), SIZE);
	/* Locked is locked: dropping does not take it away under a lock. */
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	EXPECT_RET(SYS(munlock(f.map, SIZE)), 0);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	stop(&f);
}

/*
 * Address spaces
 */

static int child_reads_and_writes(void *arg)
{
	struct fix *f = arg;

	EXPECT_EQ(pattern_diff(f->map + CHUNK, CHUNK, CHUNK), -1);
	memset(f->map, 'c', PAGE);
	/* What the parent wrote after the fork. */
	EXPECT_SOON(peek(f->map + 2 * CHUNK) == 'p');
	return 0;
}

TEST(fork_shares)
{
	struct fix f;
	pid_t pid;

	start(&f, &plain);
	EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
	pid = spawn(child_reads_and_writes, &f);
	EXPECT_SOON(peek(f.map + PAGE - 1) == 'c');
	poke(f.map + 2 * CHUNK, 'p');
	EXPECT_EQ(reap(pid, 30000), 0);
	EXPECT_EQ(bytes_diff(f.map, 'c', PAGE), -1);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(bytes_diff(f.store, 'c', PAGE), -1);
	EXPECT_EQ(f.store[2 * CHUNK], 'p');
	stop(&f);
}

TEST(mremap_grows_and_moves)
{
	unsigned char *p, *q;
	struct fix f;

	start(&f, &plain);
	p = mmap(NULL, SIZE / 2, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	ASSERT(p != MAP_FAILED);
	memset(p + PAGE, 'm', PAGE);
	q = mremap(p, SIZE / 2, SIZE, MREMAP_MAYMOVE);
	ASSERT(q != MAP_FAILED);
	EXPECT_EQ(bytes_diff(q + PAGE, 'm', PAGE), -1);
	EXPECT_EQ(pattern_diff(q + 2 * PAGE, 2 * PAGE, SIZE - 2 * PAGE), -1);
	poke(q + SIZE - 1, 'e');
	p = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(p != MAP_FAILED);
	p = mremap(q, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, p);
	ASSERT(p != MAP_FAILED);
	EXPECT_EQ(bytes_diff(p + PAGE, 'm', PAGE), -1);
	EXPECT_EQ(peek(p + SIZE - 1), 'e');
	memset(p + PAGE, 'n', PAGE);
	EXPECT_RET(SYS(msync(p, SIZE, MS_SYNC)), 0);
	EXPECT_EQ(bytes_diff(f.store + PAGE, 'n', PAGE), -1);
	EXPECT_EQ(f.store[SIZE - 1], 'e');
	munmap(p, SIZE);
	stop(&f);
}

static int write_protected(void *arg)
{
	poke(arg, 'x');
	return 0;
}

TEST(mprotect_and_back)
{
	struct fix f;
	int status;

	start_quiet(&f, &plain);
	poke(f.map, 'a');
	EXPECT_RET(SYS(mprotect(f.map, SIZE, PROT_READ)), 0);
	status = reap(spawn(write_protected, f.map), 20000);
	EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	EXPECT_EQ(peek(f.map), 'a');
	EXPECT_EQ(pattern_diff(f.map + CHUNK, CHUNK, CHUNK), -1);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_RET(SYS(mprotect(f.map, SIZE, PROT_READ | PROT_WRITE)), 0);
	poke(f.map, 'b');
	poke(f.map + CHUNK, 'c');
	EXPECT_EQ(STAT(f.id, dirty), 2 * PAGE);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(f.store[0], 'b');
	EXPECT_EQ(f.store[CHUNK], 'c');
	stop(&f);
}

TEST(private_write_stays_private)
{
	unsigned char *p;
	struct fix f;

	start(&f, &plain);
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, f.fd, 0);
	ASSERT(p != MAP_FAILED);
	memset(p, 'p', PAGE);			/* cold */
	EXPECT_EQ(peek(p + CHUNK), pattern(CHUNK));
	memset(p + CHUNK, 'q', PAGE);		/* read before */
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	EXPECT_EQ(bytes_diff(p, 'p', PAGE), -1);
	EXPECT_EQ(bytes_diff(p + CHUNK, 'q', PAGE), -1);
	EXPECT_EQ(STAT(f.id, dirty), 0);
	EXPECT_EQ(STAT(f.id, f_wp), 0);
	/* Pages not written yet follow the region. */
	poke(f.map + 2 * CHUNK, 's');
	EXPECT_EQ(peek(p + 2 * CHUNK), 's');
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(pattern_diff(f.store, 0, 2 * CHUNK), -1);
	munmap(p, SIZE);
	stop(&f);
}

TEST(partial_munmap)
{
	unsigned char *p;
	struct fix f;

	start(&f, &plain);
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	ASSERT(p != MAP_FAILED);
	poke(p + 3 * PAGE, 'u');
	EXPECT_RET(SYS(munmap(p + CHUNK, 2 * CHUNK)), 0);
	EXPECT_EQ(pattern_diff(p, 0, 3 * PAGE), -1);
	EXPECT_EQ(pattern_diff(p + 3 * CHUNK, 3 * CHUNK, SIZE - 3 * CHUNK), -1);
	EXPECT_RET(SYS(munmap(p, CHUNK)), 0);
	EXPECT_RET(SYS(munmap(p + 3 * CHUNK, SIZE - 3 * CHUNK)), 0);
	/* What was written through it is the region's. */
	EXPECT_EQ(peek(f.map + 3 * PAGE), 'u');
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(f.store[3 * PAGE], 'u');
	stop(&f);
}

/*
 * Accesses by the kernel and by others
 */

static int read_remote(void *arg)
{
	static unsigned char mine[2 * CHUNK];
	struct fix *f = arg;
	struct iovec here = { mine, sizeof(mine) };
	struct iovec there = { f->map + CHUNK + 10, sizeof(mine) };

	EXPECT_RET(SYS(process_vm_readv(getppid(), &here, 1, &there, 1, 0)),
		   sizeof(mine));
	EXPECT_EQ(pattern_diff(mine, CHUNK + 10, sizeof(mine)), -1);
	memset(mine, 'v', 3 * PAGE);
	here.iov_len = 3 * PAGE;
	there.iov_base = f->map + 8 * CHUNK + 10;
	there.iov_len = 3 * PAGE;
	EXPECT_RET(SYS(process_vm_writev(getppid(), &here, 1, &there, 1, 0)), 3 * PAGE);
	return 0;
}

TEST(process_vm_of_a_cold_mapping)
{
	struct fix f;

	start(&f, &plain);
	EXPECT_EQ(reap(spawn(read_remote, &f), 30000), 0);
	EXPECT_EQ(bytes_diff(f.map + 8 * CHUNK + 10, 'v', 3 * PAGE), -1);
	EXPECT_EQ(pattern_diff(f.map + 8 * CHUNK, 8 * CHUNK, 10), -1);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(bytes_diff(f.store + 8 * CHUNK + 10, 'v', 3 * PAGE), -1);
	stop(&f);
}

static int be_traced(void *arg)
{
	(void)arg;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return 1;
	raise(SIGSTOP);
	return 0;
}

static pid_t traced_child(struct fix *f)
{
	pid_t pid = spawn(be_traced, f);
	int status = 0;

	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT(WIFSTOPPED(status));
	return pid;
}

TEST(ptrace_of_a_cold_mapping)
{
	struct fix f;
	pid_t pid;
	long v, want;

	start(&f, &plain);
	pid = traced_child(&f);
	pattern_fill(&want, CHUNK + 8, sizeof(want));
	errno = 0;
	v = ptrace(PTRACE_PEEKDATA, pid, f.map + CHUNK + 8, NULL);
	EXPECT_EQ(errno, 0);
	EXPECT_EQ(v, want);
	EXPECT_RET(SYS(ptrace(PTRACE_POKEDATA, pid, f.map + 2 * CHUNK, want)), 0);
	EXPECT(!memcmp(f.map + 2 * CHUNK, &want, sizeof(want)));
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	EXPECT_EQ(reap(pid, 20000), 0);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT(!memcmp(f.store + 2 * CHUNK, &want, sizeof(want)));
	stop(&f);
}

/* Here the kernel cannot retry a fault: it waits within bounds, then errs. */
TEST(ptrace_with_a_silent_daemon)
{
	struct region_conf conf = plain;
	struct fix f;
	pid_t pid;

	conf.fault_ms = 200;
	start(&f, &conf);
	hold(&f);
	pid = traced_child(&f);
	EXPECT_RET(SYS(ptrace(PTRACE_PEEKDATA, pid, f.map + CHUNK, NULL)), -EIO);
	release(&f);
	EXPECT_SOON(ptrace(PTRACE_PEEKDATA, pid, f.map + CHUNK, NULL) != -1);
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	EXPECT_EQ(reap(pid, 20000), 0);
	stop(&f);
}

/* write(2) from the mapping and read(2) into it, both cold */
TEST(syscalls_on_a_cold_mapping)
{
	static unsigned char buf[2 * CHUNK];
	struct iovec iov;
	struct fix f;
	int tmp, p[2];
	__u32 futex;
	long n;

	start(&f, &plain);
	tmp = ASSERT_OK(SYS(memfd_create("selftest", 0)));
	EXPECT_RET(SYS(write(tmp, f.map + 100, 2 * CHUNK)), 2 * CHUNK);
	EXPECT_RET(SYS(pread(tmp, buf, 2 * CHUNK, 0)), 2 * CHUNK);
	EXPECT_EQ(pattern_diff(buf, 100, 2 * CHUNK), -1);

	memset(buf, 'r', CHUNK);
	EXPECT_RET(SYS(pwrite(tmp, buf, CHUNK, 0)), CHUNK);
	EXPECT_RET(SYS(pread(tmp, f.map + 6 * CHUNK + 50, CHUNK, 0)), CHUNK);
	EXPECT_EQ(bytes_diff(f.map + 6 * CHUNK + 50, 'r', CHUNK), -1);
	EXPECT_EQ(pattern_diff(f.map + 6 * CHUNK, 6 * CHUNK, 50), -1);

	ASSERT_RET(SYS(pipe(p)), 0);
	EXPECT_RET(SYS(write(p[1], f.map + 9 * CHUNK, PAGE)), PAGE);
	EXPECT_RET(SYS(read(p[0], buf, PAGE)), PAGE);
	EXPECT_EQ(pattern_diff(buf, 9 * CHUNK, PAGE), -1);

	iov.iov_base = f.map + 10 * CHUNK;
	iov.iov_len = 4 * PAGE;
	n = ASSERT_OK(SYS(vmsplice(p[1], &iov, 1, 0)));
	EXPECT_RET(SYS(read(p[0], buf, sizeof(buf))), n);
	EXPECT_EQ(pattern_diff(buf, 10 * CHUNK, n), -1);

	pattern_fill(&futex, 12 * CHUNK, sizeof(futex));
	EXPECT_RET(SYS(syscall(SYS_futex, f.map + 12 * CHUNK, FUTEX_WAIT, ~futex,
			       NULL, NULL, 0)), -EAGAIN);

	/* From the region to itself, cold at both ends. */
	EXPECT_RET(SYS(pwrite(f.fd, f.map + 14 * CHUNK, CHUNK, 16 * CHUNK)), CHUNK);
	EXPECT_EQ(pattern_diff(f.map + 16 * CHUNK, 14 * CHUNK, CHUNK), -1);
	EXPECT_RET(SYS(pread(f.fd, f.map + 18 * CHUNK, CHUNK, 20 * CHUNK)), CHUNK);
	EXPECT_EQ(pattern_diff(f.map + 18 * CHUNK, 20 * CHUNK, CHUNK), -1);
	/* A page to itself. */
	EXPECT_RET(SYS(pwrite(f.fd, f.map + 22 * CHUNK, PAGE, 22 * CHUNK)), PAGE);
	EXPECT_EQ(pattern_diff(f.map + 22 * CHUNK, 22 * CHUNK, CHUNK), -1);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT(!memcmp(f.map, f.store, SIZE));
	close(tmp);
	close(p[0]);
	close(p[1]);
	stop(&f);
}

TEST(o_direct_into_the_mapping)
{
	const char *path = "/scratch/selftest-o-direct";
	static unsigned char buf[CHUNK] __aligned(4096);
	struct fix f;
	int fd;

	if (access("/scratch", W_OK))
		SKIP("no /scratch: no disk that can do O_DIRECT");
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0600);
	if (fd < 0)
		SKIP("no O_DIRECT on /scratch: %s", strerror(errno));
	memset(buf, 'D', CHUNK);
	ASSERT_RET(SYS(pwrite(fd, buf, CHUNK, 0)), CHUNK);
	start_quiet(&f, &plain);
	/* Cold; resident and clean; over the edge of two chunks. */
	EXPECT_RET(SYS(pread(fd, f.map + CHUNK, CHUNK, 0)), CHUNK);
	EXPECT_EQ(pattern_diff(f.map + 3 * CHUNK, 3 * CHUNK, CHUNK), -1);
	EXPECT_RET(SYS(pread(fd, f.map + 3 * CHUNK, PAGE, 0)), PAGE);
	EXPECT_RET(SYS(pread(fd, f.map + 5 * CHUNK + PAGE, CHUNK, 0)), CHUNK);
	EXPECT_EQ(bytes_diff(f.map + CHUNK, 'D', CHUNK), -1);
	EXPECT_EQ(STAT(f.id, dirty), 2 * CHUNK + PAGE);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(bytes_diff(f.store + CHUNK, 'D', CHUNK), -1);
	EXPECT_EQ(bytes_diff(f.store + 3 * CHUNK, 'D', PAGE), -1);
	EXPECT_EQ(bytes_diff(f.store + 5 * CHUNK + PAGE, 'D', CHUNK), -1);
	/* And again into pages that are clean now. */
	memset(buf, 'E', CHUNK);
	ASSERT_RET(SYS(pwrite(fd, buf, CHUNK, 0)), CHUNK);
	EXPECT_RET(SYS(pread(fd, f.map + CHUNK, CHUNK, 0)), CHUNK);
	EXPECT_EQ(STAT(f.id, dirty), CHUNK);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(bytes_diff(f.store + CHUNK, 'E', CHUNK), -1);
	/* Out of the mapping, cold. */
	EXPECT_RET(SYS(pwrite(fd, f.map + 20 * CHUNK, CHUNK, 0)), CHUNK);
	EXPECT_RET(SYS(pread(fd, buf, CHUNK, 0)), CHUNK);
	EXPECT_EQ(pattern_diff(buf, 20 * CHUNK, CHUNK), -1);
	unlink(path);
	close(fd);
	stop(&f);
}

/*
 * Who pays
 */

#define CGROUP "/sys/fs/cgroup/selftest"

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static bool cgroup_make(const char *max)
{
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	/* a test that failed may have left them, and then CGROUP takes no process */
	rmdir(CGROUP "/user");
	write_file(CGROUP "/cgroup.subtree_control", "-memory");
	return (!mkdir(CGROUP, 0755) || errno == EEXIST) &&
	       write_file(CGROUP "/memory.max", max);
}

/*
 * A line of the group's memory.stat, in bytes. The kernel adds up what its CPUs have
 * counted every two seconds, or when they have counted enough.
 */
static long long cgroup_stat(const char *name)
{
	FILE *f = fopen(CGROUP "/memory.stat", "re");
	long long v, found = -1;
	char line[128];

	while (f && fscanf(f, "%127s %lld", line, &v) == 2)
		if (!strcmp(line, name))
			found = v;
	if (f)
		fclose(f);
	return found;
}

static int read_in_cgroup(void *arg)
{
	struct fix *f = arg;

	ASSERT(write_file(CGROUP "/cgroup.procs", "0"));
	EXPECT_EQ(pattern_diff(f->map, 0, f->size), -1);
	return 0;
}

/* Pages are charged to the task that needed them, not to the daemon. */
TEST(charged_to_who_faults)
{
	struct region_conf conf = { .size = 8 << 20 };
	struct fix f;

	if (!cgroup_make("max"))
		SKIP("no memory controller in " CGROUP);
	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		EXPECT_EQ(reap(spawn(read_in_cgroup, &f), 40000), 0);
		EXPECT_SOON(cgroup_stat("file") >= (long long)conf.size * 9 / 10);
		stop(&f);
	}
	rmdir(CGROUP);
}

struct user {
	struct fix *f;
	int ready[2];
	pid_t pid;
};

/* A user in the cgroup: maps all, touches nothing, lives until it is killed. */
static int map_in_cgroup(void *arg)
{
	struct user *u = arg;
	int fd;

	ASSERT(write_file(CGROUP "/user/cgroup.procs", "0"));
	fd = ASSERT_OK(region_open(u->f->name, O_RDWR));
	ASSERT(mmap(NULL, u->f->size, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
	ASSERT_EQ(write(u->ready[1], "", 1), 1);
	for (;;)
		pause();
}

/* It has mapped: that, and not that it has opened, is what it pays for. */
static void user_start(struct user *u, struct fix *f)
{
	char byte;

	u->f = f;
	ASSERT_RET(SYS(pipe(u->ready)), 0);
	u->pid = spawn(map_in_cgroup, u);
	close(u->ready[1]);
	ASSERT_EQ(read(u->ready[0], &byte, 1), 1);
	close(u->ready[0]);
}

static void user_stop(struct user *u)
{
	kill(u->pid, SIGKILL);
	EXPECT_EQ(reap(u->pid, 20000), SIGKILL);
}

/* Whoever has just put a page in may still hold it. */
static bool dropped_all(struct fix *f)
{
	ASSERT_RET(region_drop(f->fd, 0, f->size), 0);
	return !STAT(f->id, resident);
}

static void prefetch_all(struct fix *f)
{
	ASSERT_SOON(dropped_all(f));
	ASSERT(mini_prefetch(f->m, f->id, 0, f->size) > 0);
	ASSERT_SOON(STAT(f->id, resident) == (long long)f->size);
}

/*
 * What nobody waits for is the first user's, if there is one, and while its
 * cgroup exists; else the daemon's, which is in the root cgroup here.
 */
TEST(prefetch_is_charged_to_who_maps)
{
	struct region_conf conf = { .size = 8 << 20 };
	const long long most = conf.size * 9 / 10, few = conf.size / 10;
	struct user user;
	char text[16];
	struct fix f;

	if (!cgroup_make("max") || !write_file(CGROUP "/cgroup.subtree_control", "+memory"))
		SKIP("no memory controller in " CGROUP);
	ASSERT(!mkdir(CGROUP "/user", 0755) || errno == EEXIST);
	start(&f, &conf);

	context("the first user is in the root cgroup");
	user_start(&user, &f);
	EXPECT_EQ(STAT(f.id, users), 2);
	prefetch_all(&f);
	EXPECT_SOON(cgroup_stat("file") <= few);

	context("it has gone, the other stays");
	ASSERT_RET(SYS(munmap(f.map, f.size)), 0);
	close(f.fd);
	user_stop(&user);
	ASSERT_SOON(STAT(f.id, users) == 0);
	user_start(&user, &f);
	f.fd = ASSERT_OK(region_open(f.name, O_RDWR));
	prefetch_all(&f);
	EXPECT_SOON(cgroup_stat("file") >= most);

	context("its cgroup has gone: the parent");
	snprintf(text, sizeof(text), "%d", user.pid);
	ASSERT(write_file("/sys/fs/cgroup/cgroup.procs", text));
	ASSERT_RET(region_drop(f.fd, 0, f.size), 0);
	ASSERT_RET(SYS(rmdir(CGROUP "/user")), 0);
	prefetch_all(&f);
	EXPECT_SOON(cgroup_stat("file") >= most);

	context("without a user: the daemon");
	user_stop(&user);
	close(f.fd);
	ASSERT_SOON(STAT(f.id, users) == 0);
	f.fd = ASSERT_OK(region_open(f.name, O_RDWR));
	prefetch_all(&f);
	EXPECT_SOON(cgroup_stat("file") <= few);

	f.map = mmap(NULL, f.size, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	ASSERT(f.map != MAP_FAILED);
	stop(&f);
	rmdir(CGROUP);
}

static int work_in_cgroup(void *arg)
{
	struct fix *f = arg;
	size_t i;

	ASSERT(write_file(CGROUP "/cgroup.procs", "0"));
	EXPECT_EQ(pattern_diff(f->map, 0, f->size), -1);
	for (i = 0; i < f->size; i += PAGE)
		stamp(f->map + i, i);
	for (i = 0; i < f->size; i += PAGE)
		ASSERT(stamped(f->map + i, i));
	return 0;
}

/* Twice as much as the group may have: evicted, pushed, not killed. */
TEST_SECONDS(more_than_the_cgroup_may_have, 180)
{
	struct region_conf conf = { .size = 16 << 20 };
	struct fix f;
	int status;
	size_t i;

	if (!cgroup_make("8388608"))
		SKIP("no memory controller in " CGROUP);
	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		/* No limit of its own: the harness then tells where it hangs. */
		EXPECT_EQ(waitpid(spawn(work_in_cgroup, &f), &status, 0) > 0, 1);
		EXPECT_EQ(status, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		for (i = 0; i < conf.size; i += PAGE)
			ASSERT(stamped(f.store + i, i));
		diag("order %d: %llu fills were repeated for want of memory",
		     conf.order, MINI_GET(f.m, nomem));
		stop(&f);
	}
	rmdir(CGROUP);
}

struct writers {
	struct fix *f;
	pthread_barrier_t together;
};

struct writer {
	struct writers *all;
	size_t at;
};

static unsigned char whole_chunk[256 << 10];

static void *write_a_chunk(void *arg)
{
	struct writer *w = arg;

	pthread_barrier_wait(&w->all->together);
	EXPECT_RET(SYS(pwrite(w->all->f->fd, whole_chunk, sizeof(whole_chunk), w->at)),
		   (long)sizeof(whole_chunk));
	return NULL;
}

/* Each stands, and needs no more memory, before any of them writes. */
static int overwrite_in_cgroup(void *arg)
{
	const size_t count = ((struct fix *)arg)->size / sizeof(whole_chunk);
	struct writer *w = calloc(count, sizeof(*w));
	pthread_t *threads = calloc(count, sizeof(*threads));
	struct writers all = { .f = arg };
	pthread_attr_t attr;
	size_t i;

	ASSERT(w && threads);
	ASSERT(write_file(CGROUP "/cgroup.procs", "0"));
	memset(whole_chunk, 'o', sizeof(whole_chunk));
	pthread_barrier_init(&all.together, NULL, count + 1);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (i = 0; i < count; i++) {
		w[i] = (struct writer){ &all, i * sizeof(whole_chunk) };
		ASSERT_EQ(pthread_create(&threads[i], &attr, write_a_chunk, &w[i]), 0);
	}
	pthread_barrier_wait(&all.together);
	for (i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/*
 * Whoever overwrites more than the group may have, where nothing of it becomes durable,
 * waits, as long as that lasts. The kernel slows down a task that writes only after its
 * first write.
 */
TEST_SECONDS(more_is_overwritten_than_the_cgroup_may_have, 180)
{
	struct region_conf conf = { .size = 32 << 20, .chunk = sizeof(whole_chunk) };
	struct fix f;
	pid_t child;
	int status;

	if (!cgroup_make("16777216"))
		SKIP("no memory controller in " CGROUP);
	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		ASSERT_RET(mini_stall(f.m), 0);
		child = spawn(overwrite_in_cgroup, &f);
		ASSERT_SOON(STAT(f.id, waiting) >= 1 || waitpid(child, &status, WNOHANG));
		f.m->stall = 0;
		EXPECT_EQ(waitpid(child, &status, 0), child);
		EXPECT_EQ(status, 0);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(bytes_diff(f.store, 'o', f.size), -1);
		stop(&f);
	}
	rmdir(CGROUP);
}

/*
 * Signals and locks
 */

static int alarms;

static void on_alarm(int sig)
{
	(void)sig;
	__atomic_add_fetch(&alarms, 1, __ATOMIC_SEQ_CST);
}

struct storm {
	struct fix *f;
	pthread_t victim;
};

static void *storm_thread(void *arg)
{
	struct storm *s = arg;
	int i;

	ASSERT_SOON(STAT(s->f->id, waiting) == 1);
	for (i = 0; i < 200; i++) {
		pthread_kill(s->victim, SIGALRM);
		nap();
	}
	EXPECT_SOON(MINI_GET(s->f->m, fetches) == 1);
	release(s->f);
	return NULL;
}

TEST(signals_while_a_fault_waits)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	struct fix f;
	struct storm s = { &f, pthread_self() };
	pthread_t t;
	char c;

	start(&f, &plain);
	sigaction(SIGALRM, &sa, NULL);
	hold(&f);
	ASSERT_EQ(pthread_create(&t, NULL, storm_thread, &s), 0);
	EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
	pthread_join(t, NULL);
	EXPECT_GE(alarms, 1);
	expect_once(&f, 0);
	/* The same while pread waits: all of it, or EINTR, never a lie. */
	hold(&f);
	f.m->fetches = 0;
	ASSERT_EQ(pthread_create(&t, NULL, storm_thread, &s), 0);
	while (pread(f.fd, &c, 1, CHUNK + 9) != 1)
		ASSERT_EQ(errno, EINTR);
	EXPECT_EQ((unsigned char)c, pattern(CHUNK + 9));
	pthread_join(t, NULL);
	stop(&f);
}

static int touch_second_chunk(void *arg)
{
	struct fix *f = arg;

	peek(f->map + CHUNK);
	return 0;
}

static int write_second_chunk(void *arg)
{
	struct fix *f = arg;

	poke(f->map + CHUNK, 1);
	return 0;
}

static int pread_second_chunk(void *arg)
{
	struct fix *f = arg;
	char c;

	return pread(f->fd, &c, 1, CHUNK) == 1 ? 0 : errno;
}

static int pwrite_second_chunk(void *arg)
{
	struct fix *f = arg;

	return pwrite(f->fd, "x", 1, CHUNK + 1) == 1 ? 0 : errno;
}

static int splice_second_chunk(void *arg)
{
	struct fix *f = arg;
	loff_t at = CHUNK;
	int p[2];

	return !pipe(p) && splice(f->fd, &at, p[1], NULL, 10, 0) == 10 ? 0 : errno;
}

static int populate_second_chunk(void *arg)
{
	struct fix *f = arg;

	return madvise(f->map + CHUNK, PAGE, MADV_POPULATE_READ) ? errno : 0;
}

static void *store_thread(void *arg)
{
	write_second_chunk(arg);
	return NULL;
}

static const struct {
	const char *name;
	int (*fn)(void *arg);
} accesses[] = {
	{ "load", touch_second_chunk },
	{ "store", write_second_chunk },
	{ "pread", pread_second_chunk },
	{ "pwrite", pwrite_second_chunk },
	{ "splice", splice_second_chunk },
	{ "populate", populate_second_chunk },
};

TEST(sigkill_while_waiting)
{
	struct fix f;
	int status;
	size_t i;
	pid_t pid;

	start(&f, &plain);
	hold(&f);
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		context("%s", accesses[i].name);
		pid = spawn(accesses[i].fn, &f);
		ASSERT_SOON(STAT(f.id, waiting) == 1);
		kill(pid, SIGKILL);
		/* nothing else would ever end it */
		status = reap(pid, 20000);
		EXPECT(status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		EXPECT_SOON(STAT(f.id, waiting) == 0);
	}
	/* The request outlives them, and serves who comes later. */
	release(&f);
	EXPECT_EQ(pattern_diff(f.map + CHUNK, CHUNK, CHUNK), -1);
	stop(&f);
}

TEST(sigstop_while_waiting)
{
	struct fix f;
	pid_t pid;

	start(&f, &plain);
	hold(&f);
	pid = spawn(touch_second_chunk, &f);
	ASSERT_SOON(STAT(f.id, waiting) == 1);
	kill(pid, SIGSTOP);
	release(&f);
	EXPECT_SOON(STAT(f.id, resident) == CHUNK);
	kill(pid, SIGCONT);
	EXPECT_EQ(reap(pid, 20000), 0);
	stop(&f);
}

static void *mapper(void *arg)
{
	void *p;
	int i;

	(void)arg;
	for (i = 0; i < 100; i++) {
		p = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT(p != MAP_FAILED);
		poke(p, 1);
		munmap(p, CHUNK);
	}
	return NULL;
}

/* A fault that waits holds no lock that others of the process need. */
TEST(mmap_while_a_fault_waits)
{
	struct touch reader;
	pthread_t t, writer;
	struct timespec end;
	struct fix f;

	start(&f, &plain);
	hold(&f);
	touch_start(&reader, &f, 0, CHUNK);
	ASSERT_EQ(pthread_create(&writer, NULL, store_thread, &f), 0);
	ASSERT_SOON(STAT(f.id, waiting) == 2);
	ASSERT_EQ(pthread_create(&t, NULL, mapper, NULL), 0);
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 20 * harness_scale();
	EXPECT_EQ(pthread_timedjoin_np(t, NULL, &end), 0);
	EXPECT_EQ(STAT(f.id, waiting), 2);
	release(&f);
	touch_join(&reader);
	pthread_join(writer, NULL);
	stop(&f);
}

static void *munmapper(void *arg)
{
	struct fix *f = arg;

	ASSERT_SOON(STAT(f->id, waiting) == 1);
	munmap(f->map, SIZE);
	release(f);
	return NULL;
}

static int touch_and_unmap(void *arg)
{
	struct fix *f = arg;
	pthread_t t;

	ASSERT_EQ(pthread_create(&t, NULL, munmapper, f), 0);
	peek(f->map + CHUNK);
	return 0;
}

/* The mapping goes away under a fault: the task hears it, the kernel lives. */
TEST(munmap_while_a_fault_waits)
{
	struct fix f;
	int status;

	start(&f, &plain);
	hold(&f);
	status = reap(spawn(touch_and_unmap, &f), 30000);
	EXPECT(status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	stop(&f);
}

/* Faults of one chunk do not wait for those of another. */
TEST(chunks_do_not_wait_for_each_other)
{
	struct touch t;
	struct fix f;

	start(&f, &plain);
	EXPECT_EQ(pattern_diff(f.map + 4 * CHUNK, 4 * CHUNK, CHUNK), -1);
	hold(&f);
	touch_start(&t, &f, 0, CHUNK);
	ASSERT_SOON(STAT(f.id, waiting) == 1);
	/* Resident ones, mapped or not, are read and written meanwhile. */
	EXPECT_EQ(pattern_diff(f.map + 4 * CHUNK, 4 * CHUNK, CHUNK), -1);
	EXPECT_RET(SYS(madvise(f.map + 4 * CHUNK, CHUNK, MADV_DONTNEED)), 0);
	EXPECT_EQ(pattern_diff(f.map + 4 * CHUNK, 4 * CHUNK, CHUNK), -1);
	poke(f.map + 4 * CHUNK, 'w');
	EXPECT_RET(SYS(pwrite(f.fd, "x", 1, 4 * CHUNK + 1)), 1);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_EQ(STAT(f.id, waiting), 1);
	release(&f);
	touch_join(&t);
	stop(&f);
}

/*
 * The system goes to sleep over tasks that wait for us, as far as freezing
 * them. Nothing is dirty: suspending begins with a sync(2), which waits.
 */
TEST_SECONDS(suspend_while_waiting, 120)
{
	pid_t pid[ARRAY_SIZE(accesses)];
	struct fix f;
	size_t i;

	if (!write_file("/sys/power/pm_test", "freezer"))
		SKIP("no /sys/power/pm_test");
	write_file("/sys/module/suspend/parameters/pm_test_delay", "1");
	start(&f, &plain);
	hold(&f);
	for (i = 0; i < ARRAY_SIZE(accesses); i++)
		pid[i] = spawn(accesses[i].fn, &f);
	ASSERT_SOON(STAT(f.id, waiting) == (long long)ARRAY_SIZE(accesses));
	EXPECT(write_file("/sys/power/state", "freeze"));
	release(&f);
	for (i = 0; i < ARRAY_SIZE(pid); i++) {
		context("%s", accesses[i].name);
		EXPECT_EQ(reap(pid[i], 20000), 0);
	}
	context(" ");
	write_file("/sys/power/pm_test", "none");
	stop(&f);
}

/*
 * Errors and deadlines
 */

TEST(fetch_fails)
{
	static const int errnos[] = { EIO, ESTALE };
	struct sigbus why;
	unsigned char c;
	struct fix f;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(errnos); i++) {
		context("%s", strerrorname_np(errnos[i]));
		start(&f, &plain);
		MINI_SET(f.m, fetch_errno, errnos[i]);
		MINI_SET(f.m, fetch_mode, MINI_FAIL);
		EXPECT_RET(try_read(f.map + CHUNK + PAGE + 3, &c, &why), -EFAULT);
		EXPECT(why.addr == f.map + CHUNK + PAGE + 3);
		EXPECT_EQ(why.code, BUS_ADRERR);
		EXPECT_RET(try_write(f.map + 2 * CHUNK, 1, &why), -EFAULT);
		EXPECT(why.addr == f.map + 2 * CHUNK);
		EXPECT_RET(SYS(pread(f.fd, &c, 1, 3 * CHUNK)), -errnos[i]);
		EXPECT_RET(SYS(pwrite(f.fd, &c, 1, 4 * CHUNK)), -errnos[i]);
		EXPECT_EQ(STAT(f.id, resident), 0);
		EXPECT_SOON(STAT(f.id, errors) >= 4);
		/* Once the store is well again, so is the region. */
		release(&f);
		EXPECT_RET(try_read(f.map + CHUNK + PAGE + 3, &c, NULL), 0);
		EXPECT_EQ(c, pattern(CHUNK + PAGE + 3));
		EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
		for (c = 0; c < CHUNKS; c++)
			EXPECT_LE(mini_logged(f.m, RMEM_OP_FETCH, c * CHUNK, CHUNK), 2);
		stop(&f);
	}
}

/* Many wait for one chunk; all of them get the error. */
static void *expect_sigbus(void *arg)
{
	EXPECT_RET(try_read(arg, NULL, NULL), -EFAULT);
	return NULL;
}

TEST(fetch_fails_for_all_waiters)
{
	pthread_t t[8];
	struct fix f;
	size_t i;

	start(&f, &plain);
	hold(&f);
	for (i = 0; i < ARRAY_SIZE(t); i++)
		ASSERT_EQ(pthread_create(&t[i], NULL, expect_sigbus, f.map + i * PAGE), 0);
	ASSERT_SOON(STAT(f.id, waiting) == (long long)ARRAY_SIZE(t));
	MINI_SET(f.m, fetch_errno, EIO);
	MINI_SET(f.m, fetch_mode, MINI_FAIL);
	for (i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
	release(&f);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	stop(&f);
}

/* What was read or written before the chunk that fails, counts. */
TEST(short_read_before_a_failed_chunk)
{
	static unsigned char buf[3 * CHUNK];
	struct fix f;

	start(&f, &plain);
	EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
	MINI_SET(f.m, fetch_errno, EIO);
	MINI_SET(f.m, fetch_mode, MINI_FAIL);
	EXPECT_RET(SYS(pread(f.fd, buf, sizeof(buf), 100)), CHUNK - 100);
	EXPECT_EQ(pattern_diff(buf, 100, CHUNK - 100), -1);
	EXPECT_RET(SYS(pread(f.fd, buf, 1, CHUNK)), -EIO);
	/* a page that is written as a whole would not need its chunk */
	EXPECT_RET(SYS(pwrite(f.fd, buf, CHUNK, 100)), CHUNK - 100);
	EXPECT_RET(SYS(pwrite(f.fd, buf, 1, CHUNK)), -EIO);
	release(&f);
	stop(&f);
}

TEST(timeout_on_loss_error)
{
	struct region_conf conf = plain;
	struct sigbus why;
	long long since;
	unsigned char c;
	struct fix f;

	conf.on_loss = RMEM_ON_LOSS_ERROR;
	start(&f, &conf);
	EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
	hold(&f);
	EXPECT_RET(region_set(f.id, 200, 30000, RMEM_ON_LOSS_ERROR), 0);
	since = now_ms();
	EXPECT_RET(try_read(f.map + CHUNK + 77, &c, &why), -EFAULT);
	EXPECT_GE(now_ms() - since, 150);
	EXPECT(why.addr == f.map + CHUNK + 77);
	EXPECT_RET(SYS(pread(f.fd, &c, 1, 2 * CHUNK)), -EIO);
	EXPECT_RET(SYS(pwrite(f.fd, &c, 1, 3 * CHUNK)), -EIO);
	EXPECT_SOON(STAT(f.id, errors) >= 1);
	/* What is here is not concerned. */
	EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
	/* The region is well again when the first answer has come. */
	EXPECT_RET(region_set(f.id, 60000, 30000, RMEM_ON_LOSS_ERROR), 0);
	release(&f);
	EXPECT_SOON(try_read(f.map + CHUNK, &c, NULL) == 0);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	stop(&f);
}

TEST(timeout_on_loss_wait)
{
	struct region_conf conf = plain;
	struct fix f;
	pid_t pid;
	size_t i;

	conf.on_loss = RMEM_ON_LOSS_WAIT;
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		context("%s", accesses[i].name);
		conf.fault_ms = 100;
		start(&f, &conf);
		hold(&f);
		pid = spawn(accesses[i].fn, &f);
		ASSERT_SOON(STAT(f.id, waiting) == 1);
		/* Time is up: it is told, and that is all. */
		ASSERT_SOON(STAT(f.id, errors) == 1);
		EXPECT(STAYS_MS(waitpid(pid, NULL, WNOHANG) == 0, 200));
		EXPECT_EQ(STAT(f.id, waiting), 1);
		release(&f);
		EXPECT_EQ(reap(pid, 20000), 0);
		stop(&f);
	}
}

/* region-abort: whoever waits gets an error now; what comes later waits again. */
TEST(abort_ends_every_wait)
{
	static const int want[] = { SIGBUS, SIGBUS, EIO, EIO, EIO, EFAULT };
	struct fix f;
	int status;
	pid_t pid;
	size_t i;

	start(&f, &plain);
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		context("%s", accesses[i].name);
		ASSERT_RET(region_drop(f.fd, 0, 0), 0);
		hold(&f);
		pid = spawn(accesses[i].fn, &f);
		ASSERT_SOON(STAT(f.id, waiting) == 1);
		EXPECT_RET(region_abort(f.id), 0);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		if (want[i] == SIGBUS)
			EXPECT_EQ(WIFSIGNALED(status) ? WTERMSIG(status) : -1, SIGBUS);
		else
			EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, want[i]);
		EXPECT_EQ(STAT(f.id, state), RMEM_STATE_ACTIVE);
		release(&f);
		EXPECT_SOON(pattern_diff(f.map + CHUNK, CHUNK, CHUNK) == -1);
	}
	EXPECT_RET(region_abort(f.id), 0);
	EXPECT_RET(region_abort(f.id + 1000), -ENOENT);
	stop(&f);
}

static int touch_in_a_thread(void *arg)
{
	struct fix *f = arg;
	pthread_t t;

	ASSERT_EQ(pthread_create(&t, NULL, store_thread, f), 0);
	for (;;)
		pause();
}

TEST(timeout_on_loss_kill)
{
	struct region_conf conf = plain;
	struct fix f;
	int status;
	size_t i;

	conf.fault_ms = 200;
	conf.on_loss = RMEM_ON_LOSS_KILL;
	start(&f, &conf);
	hold(&f);
	for (i = 0; i < ARRAY_SIZE(accesses); i++) {
		context("%s", accesses[i].name);
		status = reap(spawn(accesses[i].fn, &f), 20000);
		EXPECT(status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	context("all threads");
	status = reap(spawn(touch_in_a_thread, &f), 20000);
	EXPECT(status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	context(" ");
	EXPECT_RET(region_set(f.id, 60000, 30000, RMEM_ON_LOSS_KILL), 0);
	release(&f);
	/* Until an answer has been taken the region is lost, and we would be killed. */
	ASSERT_SOON(MINI_GET(f.m, filled) > 0);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	stop(&f);
}

static int read_remote_in_vain(void *arg)
{
	struct fix *f = arg;
	char c;
	struct iovec here = { &c, 1 }, there = { f->map + CHUNK, 1 };

	EXPECT_RET(SYS(process_vm_readv(getppid(), &here, 1, &there, 1, 0)), -EFAULT);
	return 0;
}

/* Who looks into another's memory is not killed, and kills nobody. */
TEST(timeout_on_loss_kill_spares_remote_access)
{
	struct region_conf conf = plain;
	struct fix f;
	pid_t pid;

	conf.fault_ms = 200;
	conf.on_loss = RMEM_ON_LOSS_KILL;
	start(&f, &conf);
	hold(&f);
	EXPECT_EQ(reap(spawn(read_remote_in_vain, &f), 20000), 0);
	pid = traced_child(&f);
	EXPECT_RET(SYS(ptrace(PTRACE_PEEKDATA, pid, f.map + CHUNK, NULL)), -EIO);
	ptrace(PTRACE_CONT, pid, NULL, NULL);
	EXPECT_EQ(reap(pid, 20000), 0);
	release(&f);
	stop(&f);
}
