// SPDX-License-Identifier: GPL-2.0-only
/*
 * RMEM_FILL_EARLY: the pages that somebody waits for come ahead of their fetch, which
 * goes on without him; who waits for others of it is not forgotten; and nothing that a
 * write or a punch has overtaken gets in.
 */
#include "harness.h"
#include "raw.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (4 * CHUNK)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

struct reader {
	struct raw *r;
	__u64 at;
	int ret;		/* of try_read() */
	unsigned char seen;
	pthread_t thread;
};

static void *reader_thread(void *arg)
{
	struct reader *d = arg;

	d->ret = try_read(d->r->map + d->at, &d->seen, NULL);
	return NULL;
}

static void read_start(struct raw *r, struct reader *d, __u64 at)
{
	*d = (struct reader){ .r = r, .at = at };
	ASSERT_EQ(pthread_create(&d->thread, NULL, reader_thread, d), 0);
}

static void read_done(struct reader *d)
{
	pthread_join(d->thread, NULL);
	EXPECT_RET(d->ret, 0);
	EXPECT_EQ(d->seen, pattern(d->at));
}

/* Somebody reads at @at; his fetch is @q. */
static void ask(struct raw *r, struct reader *d, __u64 at, struct rmem_request *q)
{
	read_start(r, d, at);
	ASSERT_EQ(chan_next(&r->c, q, 20000), 1);
	ASSERT_EQ(q->op, RMEM_OP_FETCH);
}

static unsigned char bytes[CHUNK];

/* The pattern's, as of a store that nobody has written to. */
static int fill(struct raw *r, const struct rmem_request *q, __u64 at, __u64 length, __u32 flags)
{
	pattern_fill(bytes, q->offset + at, length);
	return chan_fill(&r->c, q->cookie, at, length, bytes, flags);
}

static int early(struct raw *r, const struct rmem_request *q, __u64 at, __u64 length)
{
	return fill(r, q, at, length, RMEM_FILL_EARLY);
}

/* What is dirty is written, and durable. */
static void push(struct raw *r)
{
	struct rmem_request w;

	ASSERT_RET(chan_push(&r->c, r->id), 0);
	ASSERT_EQ(chan_next(&r->c, &w, 20000), 1);
	ASSERT_EQ(w.op, RMEM_OP_WRITE);
	EXPECT_RET(chan_complete(&r->c, &w.cookie, 1, 0), 0);
	ASSERT_SOON(!STAT(r->id, writeback));
}

TEST(the_page_comes_first)
{
	struct region_conf conf = plain;
	struct rmem_request q;
	struct reader d;
	struct raw r;

	for_each_order(conf) {
		raw_start(&r, &conf);
		ask(&r, &d, CHUNK + 5 * PAGE + 7, &q);
		EXPECT_EQ(q.demand_offset / PAGE, CHUNK / PAGE + 5);
		EXPECT_RET(early(&r, &q, 4 * PAGE, 4 * PAGE), 0);
		read_done(&d);
		EXPECT_EQ(STAT(r.id, resident), 4 * PAGE);
		EXPECT_EQ(STAT(r.id, waiting), 0);
		EXPECT_EQ(pattern_diff(r.map + CHUNK + 4 * PAGE, CHUNK + 4 * PAGE, 4 * PAGE), -1);
		/* The chunk follows, in pieces as ever. */
		EXPECT_RET(fill(&r, &q, 0, 3 * PAGE, 0), 0);
		EXPECT_RET(early(&r, &q, 9 * PAGE, PAGE), 0);
		EXPECT_RET(fill(&r, &q, 3 * PAGE, CHUNK - 3 * PAGE, 0), 0);
		EXPECT_EQ(STAT(r.id, resident), CHUNK);
		EXPECT_EQ(STAT(r.id, fetched), CHUNK);
		EXPECT_EQ(pattern_diff(r.map + CHUNK, CHUNK, CHUNK), -1);
		EXPECT_RET(early(&r, &q, 0, PAGE), -ENOENT);
		EXPECT_EQ(chan_next(&r.c, &q, 0), 0);
		raw_stop(&r);
	}
}

TEST(who_waits_for_another_page_says_so_again)
{
	struct rmem_request q, joined;
	struct reader d[3];
	struct raw r;
	int i;

	raw_start(&r, &plain);
	ask(&r, &d[0], 0, &q);
	read_start(&r, &d[1], 8 * PAGE);
	read_start(&r, &d[2], 9 * PAGE);
	ASSERT_SOON(STAT(r.id, waiting) == 3);
	EXPECT_EQ(chan_next(&r.c, &joined, 0), 0);
	EXPECT_RET(early(&r, &q, 0, PAGE), 0);
	read_done(&d[0]);
	ASSERT_EQ(chan_next(&r.c, &joined, 20000), 1);
	EXPECT_EQ(joined.cookie, q.cookie);
	EXPECT_EQ(joined.flags, RMEM_REQ_JOINED);
	i = joined.demand_offset == 8 * PAGE ? 1 : 2;
	EXPECT_EQ(joined.demand_offset, (7 + i) * PAGE);
	EXPECT_RET(early(&r, &q, (7 + i) * PAGE, PAGE), 0);
	read_done(&d[i]);
	/* The last one has the chunk. */
	ASSERT_EQ(chan_next(&r.c, &joined, 20000), 1);
	EXPECT_EQ(joined.demand_offset, (10 - i) * PAGE);
	EXPECT_RET(fill(&r, &q, 0, CHUNK, 0), 0);
	read_done(&d[3 - i]);
	raw_stop(&r);
}

TEST(what_nobody_waits_for_any_more_can_be_given_back)
{
	struct rmem_request q, next;
	struct reader d;
	struct raw r;

	raw_start(&r, &plain);
	ask(&r, &d, 0, &q);
	EXPECT_RET(early(&r, &q, 0, PAGE), 0);
	read_done(&d);
	EXPECT_RET(chan_complete(&r.c, &q.cookie, 1, ECANCELED), 0);
	EXPECT_EQ(chan_next(&r.c, &next, 0), 0);
	ask(&r, &d, PAGE, &next);
	EXPECT_NE(next.cookie, q.cookie);
	EXPECT_EQ(next.flags, 0);
	EXPECT_RET(fill(&r, &next, 0, CHUNK, 0), 0);
	read_done(&d);
	raw_stop(&r);
}

TEST(a_deadline_is_of_those_who_wait)
{
	struct region_conf conf = plain;
	struct rmem_request q;
	struct reader d;
	struct raw r;

	conf.fault_ms = 500;
	conf.on_loss = RMEM_ON_LOSS_ERROR;
	raw_start(&r, &conf);
	ask(&r, &d, 0, &q);
	EXPECT_RET(early(&r, &q, 0, PAGE), 0);
	read_done(&d);
	usleep(1500 * 1000);
	EXPECT_EQ(STAT(r.id, errors), 0);
	/* And another one's is his own. */
	read_start(&r, &d, PAGE);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	EXPECT_EQ(q.flags, RMEM_REQ_JOINED);
	pthread_join(d.thread, NULL);
	EXPECT_RET(d.ret, -EFAULT);
	EXPECT_GE(STAT(r.id, errors), 1);
	EXPECT_RET(early(&r, &q, PAGE, PAGE), -ENOENT);
	raw_stop(&r);
}

TEST(read_waits_for_its_page_alone)
{
	struct rmem_request q;
	struct raw r;
	char byte;
	pid_t pid;
	int status;

	raw_start(&r, &plain);
	pid = fork();
	if (!pid)
		_exit(pread(r.fd, &byte, 1, 3 * PAGE) == 1 &&
		      (unsigned char)byte == pattern(3 * PAGE) ? 0 : 1);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	EXPECT_RET(early(&r, &q, 3 * PAGE, PAGE), 0);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(STAT(r.id, resident), PAGE);
	raw_stop(&r);
}

TEST(what_a_write_has_overtaken_stays_out)
{
	static unsigned char page[PAGE];
	struct rmem_request q;
	struct reader d;
	struct raw r;

	raw_start(&r, &plain);
	ask(&r, &d, 0, &q);
	/* A whole page needs no fetch. It is pushed, durable, and gone. */
	memset(page, 'w', sizeof(page));
	ASSERT_RET(SYS(pwrite(r.fd, page, PAGE, 2 * PAGE)), PAGE);
	push(&r);
	EXPECT_RET(region_drop(r.fd, 2 * PAGE, PAGE), 0);
	/* What was read before it must not come back, nor what was beside it. */
	EXPECT_RET(early(&r, &q, 2 * PAGE, PAGE), -EAGAIN);
	EXPECT_RET(early(&r, &q, 0, PAGE), -EAGAIN);
	EXPECT_EQ(STAT(r.id, waiting), 1);
	EXPECT_RET(fill(&r, &q, 0, CHUNK, 0), 0);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	EXPECT_EQ(q.flags, RMEM_REQ_AGAIN);
	EXPECT_RET(early(&r, &q, 0, PAGE), 0);
	read_done(&d);
	pattern_fill(bytes, 0, CHUNK);
	memset(bytes + 2 * PAGE, 'w', PAGE);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, bytes, 0), 0);
	EXPECT_EQ(bytes_diff(r.map + 2 * PAGE, 'w', PAGE), -1);
	raw_stop(&r);
}

TEST(what_is_there_stays)
{
	static unsigned char page[PAGE];
	struct rmem_request q;
	struct reader d;
	struct raw r;

	raw_start(&r, &plain);
	ask(&r, &d, 0, &q);
	memset(page, 'w', sizeof(page));
	ASSERT_RET(SYS(pwrite(r.fd, page, PAGE, PAGE)), PAGE);
	EXPECT_RET(early(&r, &q, 0, 4 * PAGE), 0);
	read_done(&d);
	EXPECT_EQ(bytes_diff(r.map + PAGE, 'w', PAGE), -1);
	EXPECT_EQ(pattern_diff(r.map + 2 * PAGE, 2 * PAGE, 2 * PAGE), -1);
	EXPECT_EQ(STAT(r.id, resident), 4 * PAGE);
	EXPECT_RET(fill(&r, &q, 0, CHUNK, 0), 0);
	EXPECT_EQ(bytes_diff(r.map + PAGE, 'w', PAGE), -1);
	push(&r);
	raw_stop(&r);
}

TEST(ranges)
{
	static const struct { __u64 at, length; } bad[] = {
		{ 0, 0 }, { 1, PAGE }, { PAGE / 2, PAGE }, { 0, PAGE - 1 }, { 0, PAGE + 1 },
		{ 0, 5001 }, { 2 * PAGE, PAGE }, { ~0ull - PAGE + 1, PAGE }, { PAGE, ~0ull },
	};
	struct region_conf conf = { .size = SIZE + 5000, .order = -1 };
	struct rmem_request q;
	struct reader d;
	struct raw r;
	size_t i;

	raw_start(&r, &conf);
	ask(&r, &d, SIZE + 4500, &q);
	ASSERT_EQ(q.length, 5000);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		context("%llx+%llx", (unsigned long long)bad[i].at,
			(unsigned long long)bad[i].length);
		EXPECT_RET(chan_fill(&r.c, q.cookie, bad[i].at, bad[i].length, bytes,
				     RMEM_FILL_EARLY), -EINVAL);
	}
	context(" ");
	EXPECT_RET(fill(&r, &q, 0, PAGE, RMEM_FILL_EARLY | RMEM_FILL_ZERO), -EINVAL);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, PAGE, NULL, RMEM_FILL_EARLY), -EFAULT);
	EXPECT_RET(chan_fill(&r.c, q.cookie + 1, 0, PAGE, bytes, RMEM_FILL_EARLY), -ENOENT);
	EXPECT_EQ(STAT(r.id, resident), 0);
	/* Nothing lies behind the end. */
	EXPECT_RET(early(&r, &q, PAGE, 5000 - PAGE), 0);
	read_done(&d);
	EXPECT_EQ(bytes_diff(r.map + SIZE + 5000, 0, 2 * PAGE - 5000), -1);
	raw_stop(&r);
}

TEST(a_killed_reader_leaves_nothing)
{
	struct rmem_request q;
	struct raw r;
	pid_t pid;
	int status;

	raw_start(&r, &plain);
	pid = fork();
	if (!pid)
		_exit(r.map[PAGE]);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	kill(pid, SIGKILL);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT_RET(early(&r, &q, PAGE, PAGE), 0);
	EXPECT_EQ(STAT(r.id, waiting), 0);
	EXPECT_RET(chan_complete(&r.c, &q.cookie, 1, ECANCELED), 0);
	EXPECT_EQ(chan_next(&r.c, &q, 0), 0);
	raw_stop(&r);
}
