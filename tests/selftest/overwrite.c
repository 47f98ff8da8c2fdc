// SPDX-License-Identifier: GPL-2.0-only
/*
 * A page that is written as a whole is not fetched before, whoever writes it and
 * whatever goes on meanwhile; and no byte of its neighbours changes for that.
 */
#include <pthread.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define CHUNKS 16
/* The last page is not a whole one. */
#define SIZE (CHUNKS * CHUNK - 1000)
#define LIMIT (1u << 20)	/* the smallest there is */

static const struct region_conf plain = { .size = SIZE, .order = -1 };

static unsigned char buf[CHUNKS * CHUNK];

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

/* [@from, @to) is @value, all else of the pattern: for programs and in the store. */
static void expect_written(struct fix *f, __u64 from, __u64 to, unsigned char value)
{
	const unsigned char *const views[] = { f->map, f->store };
	size_t i;

	EXPECT_RET(SYS(fsync(f->fd)), 0);
	EXPECT_EQ(fix_unclean(f), 0);
	EXPECT_RET(region_drop(f->fd, 0, 0), 0);
	for (i = 0; i < ARRAY_SIZE(views); i++) {
		EXPECT_EQ(pattern_diff(views[i], 0, from), -1);
		EXPECT_EQ(bytes_diff(views[i] + from, value, to - from), -1);
		EXPECT_EQ(pattern_diff(views[i] + to, to, SIZE - to), -1);
	}
}

TEST(whole_pages_are_not_fetched)
{
	static const struct { __u64 from, to, dirty; } ranges[] = {
		{ 0, PAGE, PAGE },
		{ CHUNK, 2 * CHUNK, CHUNK },
		{ 3 * PAGE, 6 * PAGE, 3 * PAGE },
		{ CHUNK - PAGE, 3 * CHUNK + PAGE, 2 * CHUNK + 2 * PAGE },
		{ SIZE / PAGE * PAGE, SIZE, SIZE % PAGE },
		{ 0, SIZE, SIZE },
	};
	struct region_conf conf = plain;
	struct fix f;
	size_t i;

	memset(buf, 'w', sizeof(buf));
	for_each_order(conf) {
		for (i = 0; i < ARRAY_SIZE(ranges); i++) {
			__u64 from = ranges[i].from, length = ranges[i].to - from;

			start(&f, &conf);
			EXPECT_RET(SYS(pwrite(f.fd, buf, length, from)), (long)length);
			EXPECT_EQ(fix_unclean(&f), (long long)((length + PAGE - 1) & -PAGE));
			EXPECT_EQ(bytes_diff(f.map + from, 'w', length), -1);
			EXPECT_EQ(MINI_GET(f.m, fetches), 0);
			EXPECT_RET(SYS(fsync(f.fd)), 0);
			EXPECT_EQ(MINI_GET(f.m, fetches), 0);
			EXPECT_EQ(mini_logged_bytes(f.m, MINI_RUN), ranges[i].dirty);
			expect_written(&f, from, ranges[i].to, 'w');
			stop(&f);
		}
	}
}

/* Of those at the edges, that a write covers in part, the chunks are. */
TEST(pages_written_in_part_are_fetched)
{
	struct region_conf conf = plain;
	struct fix f;
	__u64 from = 2 * CHUNK - 100, to = 4 * CHUNK + 100;

	memset(buf, 'p', sizeof(buf));
	for_each_order(conf) {
		start(&f, &conf);
		EXPECT_RET(SYS(pwrite(f.fd, buf, to - from, from)), (long)(to - from));
		EXPECT_EQ(MINI_GET(f.m, fetches), 2);
		EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, 2 * CHUNK, 2 * CHUNK), 0);
		EXPECT_EQ(fix_unclean(&f), 2 * CHUNK + 2 * PAGE);
		expect_written(&f, from, to, 'p');
		stop(&f);
	}
}

TEST(resident_and_absent_pages_in_turn)
{
	struct region_conf conf = plain;
	unsigned int seed = harness_seed();
	struct fix f;
	int round;

	memset(buf, 'm', sizeof(buf));
	for_each_order(conf) {
		for (round = 0; round < 20; round++) {
			__u64 from = rand_r(&seed) % (4 * CHUNK), to;
			int i;

			to = from + 1 + rand_r(&seed) % (SIZE - from - 1);
			if (round % 2)
				from &= -PAGE;
			start(&f, &conf);
			for (i = rand_r(&seed) % 20; i > 0; i--) {
				__u64 at = rand_r(&seed) % (SIZE / PAGE) * PAGE;

				EXPECT_EQ(pattern_diff(f.map + at, at, 1), -1);
				/* of a folio it cannot be parted from, nothing goes */
				EXPECT_RET(region_drop(f.fd, rand_r(&seed) % (SIZE / PAGE) * PAGE,
						       3 * PAGE), 0);
			}
			EXPECT_RET(SYS(pwrite(f.fd, buf, to - from, from)), (long)(to - from));
			expect_written(&f, from, to, 'm');
			stop(&f);
		}
	}
}

static void *read_page(void *arg)
{
	struct fix *f = arg;

	EXPECT_EQ(pattern_diff(f->map, 0, PAGE), -1);
	return NULL;
}

TEST(in_a_chunk_that_is_being_fetched)
{
	struct region_conf conf = plain;
	pthread_t reader;
	struct fix f;

	memset(buf, 'b', sizeof(buf));
	for_each_order(conf) {
		start(&f, &conf);
		MINI_SET(f.m, fetch_mode, MINI_HOLD);
		ASSERT_EQ(pthread_create(&reader, NULL, read_page, &f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 1);
		EXPECT_RET(SYS(pwrite(f.fd, buf, 3 * PAGE, 2 * PAGE)), 3 * PAGE);
		EXPECT_EQ(bytes_diff(f.map + 2 * PAGE, 'b', 3 * PAGE), -1);
		MINI_SET(f.m, fetch_mode, MINI_OK);
		pthread_join(reader, NULL);
		EXPECT_EQ(bytes_diff(f.map + 2 * PAGE, 'b', 3 * PAGE), -1);
		EXPECT_EQ(MINI_GET(f.m, fetches), 1);
		expect_written(&f, 2 * PAGE, 5 * PAGE, 'b');
		stop(&f);
	}
}

/* What a fetch brings may be older than what was written, pushed and evicted meanwhile. */
TEST(and_gone_before_the_fetch_is_over)
{
	struct region_conf conf = { .size = SIZE, .order = 0, .name = region_fresh_name() };
	struct rmem_request fetch, again, write;
	struct rmem_run runs[16];
	struct chan c;
	__u64 copied;
	__u32 id;
	int fd;

	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, id), 0);
	ASSERT_RET(chan_state(&c, id, RMEM_STATE_ACTIVE, ""), 0);
	fd = ASSERT_OK(region_open(conf.name, O_RDWR));
	ASSERT_RET(chan_prefetch(&c, id, 0, 0, CHUNK), 1);
	ASSERT_EQ(chan_next(&c, &fetch, 20000), 1);
	ASSERT_EQ(fetch.op, RMEM_OP_FETCH);
	memset(buf, 'n', PAGE);
	EXPECT_RET(SYS(pwrite(fd, buf, PAGE, 0)), PAGE);
	ASSERT_RET(chan_push(&c, id), 0);
	ASSERT_EQ(chan_next(&c, &write, 20000), 1);
	ASSERT_EQ(write.op, RMEM_OP_WRITE);
	EXPECT_RET(chan_writeout(&c, write.cookie, buf, CHUNK, runs, 16, &copied), 1);
	EXPECT_EQ(bytes_diff(buf, 'n', PAGE), -1);
	EXPECT_RET(chan_complete(&c, &write.cookie, 1, 0), 0);
	/* whoever pushed it may still hold a reference */
	ASSERT_SOON(region_drop(fd, 0, PAGE) == 0 && STAT(id, resident) == 0);

	pattern_fill(buf, 0, CHUNK);
	EXPECT_RET(chan_fill(&c, fetch.cookie, 0, CHUNK, buf, 0), 0);
	EXPECT_EQ(STAT(id, resident), 0);
	ASSERT_EQ(chan_next(&c, &again, 20000), 1);
	EXPECT_EQ(again.op, RMEM_OP_FETCH);
	memset(buf, 'n', PAGE);
	EXPECT_RET(chan_fill(&c, again.cookie, 0, CHUNK, buf, 0), 0);
	EXPECT_EQ(STAT(id, resident), CHUNK);
	EXPECT_RET(SYS(pread(fd, buf, CHUNK, 0)), CHUNK);
	EXPECT_EQ(bytes_diff(buf, 'n', PAGE), -1);
	EXPECT_EQ(pattern_diff(buf + PAGE, PAGE, CHUNK - PAGE), -1);
	close(fd);
	chan_close(&c);
	EXPECT_RET(region_del(id), 0);
}

/* The bytes come from the region itself, from pages that are not there either. */
TEST(from_the_region_itself)
{
	struct region_conf conf = { .size = 4 * LIMIT, .order = -1, .resident_limit = LIMIT };
	struct fix f;

	for_each_order(conf) {
		ASSERT_RET(fix_start(&f, &conf), 0);
		EXPECT_RET(SYS(pwrite(f.fd, f.map + 2 * LIMIT, 2 * LIMIT, 0)), 2 * LIMIT);
		EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, 0, 2 * LIMIT), 0);
		EXPECT_EQ(pattern_diff(f.map, 2 * LIMIT, 2 * LIMIT), -1);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_EQ(pattern_diff(f.store, 2 * LIMIT, 2 * LIMIT), -1);
		stop(&f);
	}
}

TEST(from_a_buffer_that_ends)
{
	unsigned char *two = mmap(NULL, 2 * CHUNK, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct region_conf conf = plain;
	struct fix f;
	long n;

	ASSERT(two != MAP_FAILED);
	memset(two, 'e', CHUNK);
	ASSERT_RET(SYS(munmap(two + CHUNK, CHUNK)), 0);
	for_each_order(conf) {
		start(&f, &conf);
		n = SYS(pwrite(f.fd, two, CHUNK + PAGE, PAGE));
		EXPECT_EQ(n, CHUNK);
		expect_written(&f, PAGE, PAGE + n, 'e');
		EXPECT_RET(SYS(pwrite(f.fd, two + CHUNK, CHUNK, 8 * CHUNK)), -EFAULT);
		expect_written(&f, PAGE, PAGE + n, 'e');
		stop(&f);
	}
}

/*
 * Limits
 */

/* Each with a part of its own, of a byte of its own. */
struct writer {
	struct fix *f;
	pthread_t thread;
	__u64 offset, length;
};

static void *write_part(void *arg)
{
	struct writer *w = arg;
	unsigned char *bytes = malloc(w->length);

	memset(bytes, 'A' + w->offset / w->length, w->length);
	EXPECT_RET(SYS(pwrite(w->f->fd, bytes, w->length, w->offset)), (long)w->length);
	free(bytes);
	return NULL;
}

static void overwrite_all(struct fix *f, long long (*used)(const struct fix *f))
{
	struct writer writers[4];
	long long most = 0;
	size_t i, ended;

	for (i = 0; i < ARRAY_SIZE(writers); i++) {
		writers[i] = (struct writer){ .f = f, .length = f->size / ARRAY_SIZE(writers) };
		writers[i].offset = i * writers[i].length;
		ASSERT_EQ(pthread_create(&writers[i].thread, NULL, write_part, &writers[i]), 0);
	}
	for (ended = 0; ended < ARRAY_SIZE(writers);) {
		long long now = used(f);

		most = now > most ? now : most;
		ended += !pthread_tryjoin_np(writers[ended].thread, NULL);
		nap();
	}
	EXPECT_LE(most, LIMIT);
	EXPECT_GT(most, 0);
	EXPECT_EQ(MINI_GET(f->m, fetches), 0);
	EXPECT_RET(SYS(fsync(f->fd)), 0);
	for (i = 0; i < ARRAY_SIZE(writers); i++)
		EXPECT_EQ(bytes_diff(f->store + writers[i].offset, 'A' + i, writers[i].length), -1);
}

static long long resident(const struct fix *f)
{
	return STAT(f->id, resident);
}

static void within(struct region_conf conf, long long (*used)(const struct fix *f))
{
	struct fix f;

	conf.size = 8 * LIMIT;
	for_each_order(conf) {
		ASSERT_RET(fix_start(&f, &conf), 0);
		overwrite_all(&f, used);
		stop(&f);
	}
}

TEST(within_a_resident_limit)
{
	within((struct region_conf){ .resident_limit = LIMIT }, resident);
}

TEST(within_a_dirty_limit)
{
	within((struct region_conf){ .dirty_limit = LIMIT }, fix_at_risk);
}

static void *write_two_megabytes(void *arg)
{
	struct fix *f = arg;

	return (void *)(long)SYS(pwrite(f->fd, f->store, 2 * LIMIT, 0));
}

/* Who waits for room while nothing becomes durable has written what there was room for. */
TEST(no_room_is_told)
{
	struct region_conf conf = {
		.size = 8 * LIMIT, .order = -1, .dirty_limit = LIMIT,
		.on_loss = RMEM_ON_LOSS_ERROR, .fault_ms = 300,
	};
	pthread_t writer;
	struct fix f;
	void *ret;

	for_each_order(conf) {
		ASSERT_RET(fix_start(&f, &conf), 0);
		MINI_SET(f.m, write_mode, MINI_HOLD);
		ASSERT_EQ(pthread_create(&writer, NULL, write_two_megabytes, &f), 0);
		pthread_join(writer, &ret);
		EXPECT_EQ((long)ret, LIMIT);
		EXPECT_RET(SYS(pwrite(f.fd, buf, PAGE, 4 * LIMIT)), -EIO);
		MINI_SET(f.m, write_mode, MINI_OK);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT_RET(SYS(pwrite(f.fd, buf, PAGE, 4 * LIMIT)), PAGE);
		stop(&f);
	}
}

TEST(of_a_failed_region)
{
	struct fix f;

	start(&f, &plain);
	EXPECT_EQ(pattern_diff(f.map, 0, PAGE), -1);
	ASSERT_RET(mini_state(f.m, f.id, RMEM_STATE_FAILED), 0);
	EXPECT_RET(SYS(pwrite(f.fd, buf, CHUNK, CHUNK)), -ESTALE);
	EXPECT_RET(region_overwrite(f.fd, CHUNK, CHUNK), -ESTALE);
	EXPECT_EQ(fix_unclean(&f), 0);
	EXPECT_RET(region_del_force(f.id, NULL), 0);
	EXPECT_RET(SYS(pwrite(f.fd, buf, CHUNK, CHUNK)), -EIO);
	EXPECT_RET(region_overwrite(f.fd, CHUNK, CHUNK), -EIO);
}

/*
 * Said beforehand, for stores
 */

TEST(stores_that_were_announced)
{
	struct region_conf conf = plain;
	struct fix f;
	__u64 at;

	for_each_order(conf) {
		start(&f, &conf);
		EXPECT_EQ(peek(f.map + 5 * CHUNK), pattern(5 * CHUNK));
		mini_log_clear(f.m);
		EXPECT_RET(region_overwrite(f.fd, 2 * CHUNK - 100, 6 * CHUNK + 200), 0);
		/* what is there stays, and what the range only touches */
		EXPECT_EQ(pattern_diff(f.map + 5 * CHUNK, 5 * CHUNK, CHUNK), -1);
		EXPECT_EQ(bytes_diff(f.map + 2 * CHUNK, 0, 3 * CHUNK), -1);
		EXPECT_EQ(fix_unclean(&f), 5 * CHUNK);
		EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, 0, SIZE), 0);
		for (at = 2 * CHUNK; at < 8 * CHUNK; at += PAGE)
			memset(f.map + at, 's', PAGE);
		EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, 0, SIZE), 0);
		EXPECT_EQ(fix_unclean(&f), 6 * CHUNK);
		expect_written(&f, 2 * CHUNK, 8 * CHUNK, 's');
		stop(&f);
	}
}

TEST(announced_and_not_written)
{
	struct region_conf conf = plain;
	struct fix f;

	for_each_order(conf) {
		start(&f, &conf);
		/* beyond the end: up to there, with the page that is not a whole one */
		EXPECT_RET(region_overwrite(f.fd, SIZE / PAGE * PAGE, CHUNK), 0);
		EXPECT_EQ(bytes_diff(f.map + SIZE / PAGE * PAGE, 0, PAGE), -1);
		expect_written(&f, SIZE / PAGE * PAGE, SIZE, 0);
		EXPECT_RET(region_overwrite(f.fd, SIZE, 0), 0);
		EXPECT_RET(region_overwrite(f.fd, ~0ull, ~0ull), 0);
		EXPECT_RET(region_overwrite(f.fd, 100, 100), 0);
		EXPECT_EQ(fix_unclean(&f), 0);
		stop(&f);
	}
}

TEST(announced_by_those_who_may_not)
{
	struct region_conf conf = plain;
	struct fix f;
	int fd;

	start(&f, &conf);
	fd = ASSERT_OK(region_open(f.name, O_RDONLY));
	EXPECT_RET(region_overwrite(fd, 0, CHUNK), -EBADF);
	close(fd);
	EXPECT_EQ(fix_unclean(&f), 0);
	stop(&f);
}

/*
 * All at once: pages overwritten, evicted, punched and fetched by several. Each page has
 * one writer, so what it reads back is what it wrote last.
 */
#define ROUNDS 400

static int many_things(void *arg)
{
	struct writer *w = arg;
	unsigned int seed = w->offset / w->length + harness_seed();
	int fd = ASSERT_OK(region_open(w->f->name, O_RDWR)), i;
	unsigned char *bytes = malloc(w->length), *model = malloc(w->length);

	ASSERT(bytes && model);
	pattern_fill(model, w->offset, w->length);
	for (i = 0; i < ROUNDS; i++) {
		__u64 at = rand_r(&seed) % (w->length / PAGE) * PAGE;
		__u64 length = (1 + rand_r(&seed) % 8) * PAGE;

		length = length < w->length - at ? length : w->length - at;
		switch (rand_r(&seed) % 6) {
		case 0:
			EXPECT_RET(region_drop(fd, w->offset + at, length), 0);
			break;
		case 1:
			EXPECT_RET(SYS(fdatasync(fd)), 0);
			break;
		case 2:
			EXPECT_RET(region_punch(fd, w->offset + at, length), 0);
			memset(model + at, 0, length);
			break;
		case 3:
			EXPECT_RET(SYS(pread(fd, bytes, length, w->offset + at)), (long)length);
			EXPECT(!memcmp(bytes, model + at, length));
			break;
		default:
			memset(model + at, i, length);
			EXPECT_RET(SYS(pwrite(fd, model + at, length, w->offset + at)), (long)length);
		}
	}
	EXPECT_RET(SYS(fsync(fd)), 0);
	EXPECT(!memcmp(w->f->store + w->offset, model, w->length));
	return 0;
}

TEST_SECONDS(with_all_else_at_once, 180)
{
	struct region_conf conf = { .size = 4 * LIMIT, .order = -1, .resident_limit = LIMIT };
	struct writer writers[4];
	pid_t pids[ARRAY_SIZE(writers)];
	struct fix f;
	size_t i;

	for_each_order(conf) {
		ASSERT_RET(fix_start(&f, &conf), 0);
		for (i = 0; i < ARRAY_SIZE(writers); i++) {
			/* neighbours share a chunk */
			writers[i] = (struct writer){ .f = &f, .length = 5 * PAGE + CHUNK };
			writers[i].offset = i * writers[i].length;
			pids[i] = spawn(many_things, &writers[i]);
		}
		for (i = 0; i < ARRAY_SIZE(writers); i++)
			EXPECT_EQ(reap(pids[i], 150000), 0);
		stop(&f);
	}
}
