// SPDX-License-Identifier: GPL-2.0-only
/*
 * RMEM_IOC_RUNS and RMEM_IOC_SEND: a write's bytes go into a socket, all of them
 * and no others, however full that is; and a message that was begun is completed,
 * whatever has become of the write.
 */
#include <sys/mman.h>

#include "harness.h"
#include "raw.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (4 * CHUNK)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

static unsigned char wire[RMEM_CHUNK_MAX];

/* All of it is there, as a store full of the pattern would have it. */
static void load_all(struct raw *r)
{
	struct rmem_request q;
	__u64 loaded = 0;

	EXPECT_GE(chan_prefetch(&r->c, r->id, 0, 0, r->size), 1);
	while (loaded < r->size) {
		ASSERT_EQ(chan_next(&r->c, &q, 20000), 1);
		ASSERT_EQ(q.op, RMEM_OP_FETCH);
		pattern_fill(wire, q.offset, q.length);
		ASSERT_RET(chan_fill(&r->c, q.cookie, 0, q.length, wire, 0), 0);
		loaded += q.length;
	}
}

static void start(struct raw *r, const struct region_conf *conf)
{
	raw_start(r, conf);
	load_all(r);
}

/* What was never there, and differs from one @tag to the next. */
static void rewrite(struct raw *r, __u64 at, size_t len, __u64 tag)
{
	pattern_fill(r->map + at, at + tag * 1000003, len);
}

static void push(struct raw *r, struct rmem_request *q)
{
	ASSERT_RET(chan_push(&r->c, r->id), 0);
	/* PG_readahead is PG_reclaim, too, which a drop leaves on dirty folios */
	do
		ASSERT_EQ(chan_next(&r->c, q, 20000), 1);
	while (q->op == RMEM_OP_HIT);
	ASSERT_EQ(q->op, RMEM_OP_WRITE);
}

static void durable(struct raw *r, const struct rmem_request *q)
{
	EXPECT_RET(chan_complete(&r->c, &q->cookie, 1, 0), 0);
}

/* Empties the socket into wire[], up to @end; what has come by now. */
static __u64 drain(struct pair *p, __u64 got, __u64 end)
{
	ssize_t n;

	while (got < end && (n = recv(p->in, wire + got, end - got, MSG_DONTWAIT)) > 0)
		got += n;
	return got;
}

/* Until all of the range has gone and come: as the region has it. */
static void send_whole(struct raw *r, __u64 at, __u64 len, struct pair *p)
{
	struct pollfd out = { .fd = p->out, .events = POLLOUT };
	struct pollfd in = { .fd = p->in, .events = POLLIN };
	__u64 done = 0, got = 0, n;
	int ret = -EAGAIN;

	ASSERT(len <= sizeof(wire));
	while (ret == -EAGAIN) {
		ret = chan_send(&r->c, r->id, at + done, len - done, p->out, &n);
		done += n;
		got = drain(p, got, len);
		if (ret == -EAGAIN)
			ASSERT_EQ(poll(&out, 1, 20000), 1);
	}
	ASSERT_RET(ret, 0);
	EXPECT_EQ(done, len);
	while (got < len) {
		ASSERT_EQ(poll(&in, 1, 20000), 1);
		got = drain(p, got, len);
	}
	EXPECT_EQ(memcmp(wire, r->map + at, len), 0);
	EXPECT_EQ(recv(p->in, wire, 1, MSG_DONTWAIT), -1);
}

/* Sends until the socket takes no more; how much that was. */
static __u64 send_until_full(struct raw *r, __u64 at, __u64 len, struct pair *p)
{
	__u64 done = 0, n;
	int ret;

	do {
		ret = chan_send(&r->c, r->id, at + done, len - done, p->out, &n);
		done += n;
	} while (ret == -EAGAIN && n);
	EXPECT_RET(ret, -EAGAIN);
	return done;
}

/*
 * Runs
 */

TEST(runs_are_those_of_the_write)
{
	struct region_conf conf = { .size = SIZE + 5000 };
	struct rmem_write_run runs[16];
	struct rmem_request q;
	struct raw r;
	int n, i;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&r, &conf);
		/* A page; two, one of them zeros but for its last byte; zeros; two. */
		rewrite(&r, 1 * PAGE, PAGE, 1);
		rewrite(&r, 3 * PAGE, PAGE, 1);
		memset(r.map + 4 * PAGE, 0, PAGE);
		poke(r.map + 5 * PAGE - 1, 1);
		memset(r.map + 5 * PAGE, 0, 3 * PAGE);
		rewrite(&r, 8 * PAGE, 2 * PAGE, 1);
		push(&r, &q);
		EXPECT_EQ(q.payload, 8 * PAGE);
		memset(runs, 0xff, sizeof(runs));
		n = chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs));
		if (EXPECT_RET(n, 4)) {
			static const struct rmem_write_run want[4] = {
				{ .offset = 1 * PAGE, .length = PAGE },
				{ .offset = 3 * PAGE, .length = 2 * PAGE },
				{ .offset = 5 * PAGE, .length = 3 * PAGE, .flags = RMEM_RUN_ZERO },
				{ .offset = 8 * PAGE, .length = 2 * PAGE },
			};

			for (i = 0; i < n; i++) {
				context("order %d, run %d", conf.order, i);
				EXPECT_EQ(memcmp(&runs[i], &want[i], sizeof(want[i])), 0);
			}
		}
		/* Room for all of them, or it is an error. */
		EXPECT_RET(chan_runs(&r.c, q.cookie, runs, 4), 4);
		EXPECT_RET(chan_runs(&r.c, q.cookie, runs, 3), -ENOBUFS);
		EXPECT_RET(chan_runs(&r.c, q.cookie, runs, 0), -ENOBUFS);
		EXPECT_RET(chan_runs(&r.c, q.cookie, (void *)8, 4), -EFAULT);
		/* As they are now: one of the zeros is none any more, and is dirty again. */
		poke(r.map + 6 * PAGE, 'x');
		EXPECT_RET(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs)), 6);
		EXPECT_EQ(runs[3].offset, 6 * PAGE);
		EXPECT_EQ(runs[3].length, PAGE);
		EXPECT_EQ(runs[3].flags, 0);
		durable(&r, &q);
		EXPECT_RET(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs)), -ENOENT);
		EXPECT_EQ(STAT(r.id, dirty), PAGE);
		push(&r, &q);
		EXPECT_EQ(q.payload, PAGE);
		durable(&r, &q);

		/* The region ends within a page. */
		rewrite(&r, SIZE + PAGE, 5000 - PAGE, 1);
		push(&r, &q);
		EXPECT_RET(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs)), 1);
		EXPECT_EQ(runs[0].offset, SIZE + PAGE);
		EXPECT_EQ(runs[0].length, 5000 - PAGE);
		EXPECT_EQ(runs[0].flags, 0);
		memset(r.map + SIZE + PAGE, 0, 5000 - PAGE);
		EXPECT_RET(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs)), 1);
		EXPECT_EQ(runs[0].length, 5000 - PAGE);
		EXPECT_EQ(runs[0].flags, RMEM_RUN_ZERO);
		durable(&r, &q);
		push(&r, &q);
		durable(&r, &q);
		raw_stop(&r);
	}
}

TEST(most_runs)
{
	struct region_conf conf = {
		.size = RMEM_CHUNK_MAX, .chunk = RMEM_CHUNK_MAX, .order = -1,
	};
	static struct rmem_write_run runs[RMEM_CHUNK_MAX / PAGE];
	struct rmem_request q;
	struct raw r;
	__u64 at;

	start(&r, &conf);
	for (at = 0; at < conf.size; at += 2 * PAGE) {
		memset(r.map + at, 0, PAGE);
		rewrite(&r, at + PAGE, PAGE, 1);
	}
	push(&r, &q);
	EXPECT_RET(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs)), ARRAY_SIZE(runs));
	EXPECT_RET(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs) - 1), -ENOBUFS);
	durable(&r, &q);
	raw_stop(&r);
}

TEST(runs_of_a_write_only)
{
	struct rmem_write_run runs[16];
	struct rmem_request q;
	struct raw r;

	raw_start(&r, &plain);
	EXPECT_RET(chan_prefetch(&r.c, r.id, 0, 0, CHUNK), 1);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	EXPECT_RET(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs)), -EINVAL);
	EXPECT_RET(chan_runs(&r.c, q.cookie ^ 1ull << 63, runs, ARRAY_SIZE(runs)), -ENOENT);
	EXPECT_RET(chan_runs(&r.c, 0, runs, ARRAY_SIZE(runs)), -ENOENT);
	raw_stop(&r);
}

/*
 * What goes
 */

TEST(every_family)
{
	struct region_conf conf = { .size = SIZE + 5000 };
	struct rmem_write_run runs[16];
	struct rmem_request q;
	__u64 sent;
	struct raw r;
	struct pair p;
	int f, i, n;

	for (f = 0; f < FAMILIES; f++) {
		for (conf.order = 0; conf.order <= 4; conf.order += 4) {
			context("%s, order %d", family_names[f], conf.order);
			start(&r, &conf);
			p = connected(f);
			/* A whole chunk; parts of one; the end. */
			rewrite(&r, 0, CHUNK, 1);
			rewrite(&r, CHUNK + PAGE, 3 * PAGE, 2);
			rewrite(&r, 2 * CHUNK - 100, 99, 3);
			rewrite(&r, SIZE, 5000, 4);
			EXPECT_RET(chan_push(&r.c, r.id), 0);
			sent = 0;
			while (chan_next(&r.c, &q, 0)) {
				n = chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs));
				EXPECT_GE(n, 1);
				for (i = 0; i < n; i++) {
					send_whole(&r, runs[i].offset, runs[i].length, &p);
					sent += runs[i].length;
				}
				durable(&r, &q);
			}
			EXPECT_EQ(sent, CHUNK + 4 * PAGE + 5000);
			EXPECT_EQ(debugfs_number(&r, "sent"), sent);
			EXPECT_EQ(STAT(r.id, dirty) + STAT(r.id, writeback), 0);
			/* What is durable is still there. */
			send_whole(&r, PAGE + 1, CHUNK - 1, &p);
			disconnect(&p);
			raw_stop(&r);
		}
	}
}

TEST(full_socket)
{
	struct region_conf conf = {
		.size = RMEM_CHUNK_MAX, .chunk = RMEM_CHUNK_MAX, .order = -1,
	};
	struct pollfd out = { .events = POLLOUT };
	int f, bytes = 100000;
	struct rmem_request q;
	__u64 at, got, n;
	struct raw r;
	struct pair p;
	int ret;

	for (f = 0; f < FAMILIES; f++) {
		context("%s", family_names[f]);
		start(&r, &conf);
		p = connected(f);
		/* Less than the whole. */
		ASSERT_RET(SYS(setsockopt(p.out, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes))), 0);
		ASSERT_RET(SYS(setsockopt(p.in, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes))), 0);
		rewrite(&r, 0, conf.size, 5);
		push(&r, &q);
		at = send_until_full(&r, 0, conf.size, &p);
		EXPECT_GE(at, 1);
		EXPECT_LE(at, conf.size - 1);
		/* From there on, as soon as there is room. */
		got = 0;
		out.fd = p.out;
		do {
			got = drain(&p, got, conf.size);
			ret = poll(&out, 1, 0);
			if (ret == 1)
				ret = chan_send(&r.c, r.id, at, conf.size - at, p.out, &n);
			else
				ret = -EAGAIN, n = 0;
			at += n;
		} while (ret == -EAGAIN);
		EXPECT_RET(ret, 0);
		EXPECT_EQ(at, conf.size);
		ASSERT_SOON((got = drain(&p, got, conf.size)) == conf.size);
		EXPECT_EQ(memcmp(wire, r.map, conf.size), 0);
		durable(&r, &q);
		disconnect(&p);
		raw_stop(&r);
	}
}

/* What is written meanwhile goes, too; and again. */
TEST(newest_bytes)
{
	struct rmem_request q;
	struct raw r;
	struct pair p;

	start(&r, &plain);
	p = connected(UNIX);
	rewrite(&r, 0, 2 * PAGE, 1);
	push(&r, &q);
	rewrite(&r, PAGE, PAGE, 2);
	send_whole(&r, 0, 2 * PAGE, &p);
	durable(&r, &q);
	EXPECT_EQ(STAT(r.id, dirty), PAGE);
	push(&r, &q);
	EXPECT_EQ(q.offset, PAGE);
	EXPECT_EQ(q.payload, PAGE);
	durable(&r, &q);
	disconnect(&p);
	raw_stop(&r);
}

/*
 * What is refused
 */

TEST(values)
{
	struct rmem_ioc_send a = { .size = sizeof(a) };
	struct region_conf conf = { .size = SIZE - 100, .order = -1 };
	struct raw r, other;
	struct pair p;
	__u64 sent;
	int left;

	start(&r, &conf);
	raw_start(&other, &plain);
	p = connected(UNIX);
	EXPECT_RET(chan_send(&r.c, r.id, 0, 0, p.out, &sent), -EINVAL);
	EXPECT_RET(chan_send(&r.c, r.id, 0, ~0ull, p.out, &sent), -EINVAL);
	EXPECT_RET(chan_send(&r.c, r.id, conf.size, 1, p.out, &sent), -EINVAL);
	EXPECT_RET(chan_send(&r.c, r.id, ~0ull, 1, p.out, &sent), -EINVAL);
	EXPECT_RET(chan_send(&r.c, r.id, ~0ull, ~0ull, p.out, &sent), -EINVAL);
	EXPECT_RET(chan_send(&r.c, r.id, conf.size - PAGE, PAGE + 1, p.out, &sent), -EINVAL);
	EXPECT_RET(chan_send(&r.c, ~0u, 0, PAGE, p.out, &sent), -ENOENT);
	EXPECT_RET(chan_send(&r.c, other.id, 0, PAGE, p.out, &sent), -ENOTCONN);
	EXPECT_RET(chan_send(&other.c, r.id, 0, PAGE, p.out, &sent), -ENOTCONN);
	/* Nothing of the other one is resident. */
	EXPECT_RET(chan_send(&other.c, other.id, 0, PAGE, p.out, &sent), -ENOENT);
	EXPECT_EQ(sent, 0);
	EXPECT_RET(SYS(ioctl(p.in, FIONREAD, &left)), 0);
	EXPECT_EQ(left, 0);
	/* What the kernel answers, it answers in full. */
	a.region_id = r.id;
	a.fd = p.out;
	a.offset = conf.size - PAGE - 1;
	a.length = PAGE + 1;
	a.sent = a.error = ~0u;
	EXPECT_RET(SYS(ioctl(r.c.fd, RMEM_IOC_SEND, &a)), 0);
	EXPECT_EQ(a.sent, PAGE + 1);
	EXPECT_EQ(a.error, 0);
	EXPECT_EQ(drain(&p, 0, PAGE + 1), PAGE + 1);
	EXPECT_EQ(memcmp(wire, r.map + a.offset, PAGE + 1), 0);
	disconnect(&p);
	raw_stop(&other);
	raw_stop(&r);
}

/* Up to the first byte that is not there. */
TEST(absent)
{
	struct rmem_request q;
	struct raw r;
	struct pair p;
	__u64 sent;

	raw_start(&r, &plain);
	p = connected(UNIX);
	EXPECT_RET(chan_prefetch(&r.c, r.id, 0, 0, CHUNK), 1);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	pattern_fill(wire, 0, CHUNK);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, wire, 0), 0);
	EXPECT_RET(chan_send(&r.c, r.id, CHUNK - 1000, 2000, p.out, &sent), -ENOENT);
	EXPECT_EQ(sent, 1000);
	EXPECT_EQ(drain(&p, 0, 2000), 1000);
	EXPECT_EQ(pattern_diff(wire, CHUNK - 1000, 1000), -1);
	EXPECT_RET(chan_send(&r.c, r.id, CHUNK, 1000, p.out, &sent), -ENOENT);
	EXPECT_EQ(sent, 0);
	/* Nobody has asked for it because of that. */
	EXPECT_EQ(chan_next(&r.c, &q, 0), 0);
	disconnect(&p);
	raw_stop(&r);
}

TEST(failed_region)
{
	struct rmem_request q;
	struct raw r;
	struct pair p;
	__u64 sent;

	start(&r, &plain);
	p = connected(TCP4);
	rewrite(&r, 0, PAGE, 1);
	push(&r, &q);
	EXPECT_RET(chan_state(&r.c, r.id, RMEM_STATE_FAILED, "another store"), 0);
	EXPECT_RET(chan_send(&r.c, r.id, 0, PAGE, p.out, &sent), -ESTALE);
	EXPECT_EQ(sent, 0);
	disconnect(&p);
	munmap(r.map, r.size);
	close(r.fd);
	chan_close(&r.c);
	EXPECT_RET(region_del_force(r.id, &sent), 0);
	EXPECT_EQ(sent, PAGE);
}

TEST(feature_is_announced)
{
	struct rmem_ioc_setup s = {
		.size = sizeof(s), .ring_entries = 64, .uapi_major = RMEM_UAPI_MAJOR,
		.features = RMEM_FEATURE_SEND,
	};
	int fd = ASSERT_OK(SYS(open(CONTROL_PATH, O_RDWR | O_CLOEXEC)));

	ASSERT_RET(SYS(ioctl(fd, RMEM_IOC_SETUP, &s)), 0);
	EXPECT_EQ(s.features, RMEM_FEATURE_SEND);
	close(fd);
}

static int refused(struct raw *r, int fd)
{
	__u64 sent = ~0ull;
	int ret = chan_send(&r->c, r->id, 0, PAGE, fd, &sent);

	EXPECT_EQ(sent, 0);
	return ret;
}

TEST(no_such_sockets)
{
	static const struct { int family, type, err; } others[] = {
		{ AF_INET, SOCK_DGRAM, EINVAL }, { AF_INET6, SOCK_DGRAM, EINVAL },
		{ AF_UNIX, SOCK_DGRAM, EINVAL }, { AF_UNIX, SOCK_SEQPACKET, EINVAL },
		{ AF_NETLINK, SOCK_RAW, EINVAL },
		/* connected to nobody */
		{ AF_INET, SOCK_STREAM, EPIPE }, { AF_INET6, SOCK_STREAM, EPIPE },
		{ AF_UNIX, SOCK_STREAM, EINVAL },
	};
	struct sockaddr_storage at;
	socklen_t len;
	struct raw r;
	struct pair p;
	int fd, fds[2];
	size_t i;

	start(&r, &plain);
	EXPECT_RET(refused(&r, -1), -EINVAL);
	EXPECT_RET(refused(&r, 1 << 20), -EINVAL);
	EXPECT_RET(refused(&r, r.c.fd), -EINVAL);
	EXPECT_RET(refused(&r, r.fd), -EINVAL);
	ASSERT_RET(SYS(pipe(fds)), 0);
	EXPECT_RET(refused(&r, fds[1]), -EINVAL);
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		context("family %d type %d", others[i].family, others[i].type);
		fd = ASSERT_OK(SYS(socket(others[i].family, others[i].type, 0)));
		EXPECT_RET(refused(&r, fd), -others[i].err);
		close(fd);
	}
	context("seqpacket pair");
	ASSERT_RET(SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds)), 0);
	EXPECT_RET(refused(&r, fds[0]), -EINVAL);
	context("listening");
	fd = listener(TCP4, &at, &len);
	EXPECT_RET(refused(&r, fd), -EINVAL);
	close(fd);
	context("of somebody else");
	fd = foreign_socket();
	EXPECT_RET(refused(&r, fd), -EINVAL);
	close(fd);
	context(" ");
	/* None of them did any harm. */
	p = connected(TCP4);
	send_whole(&r, 0, CHUNK, &p);
	disconnect(&p);
	raw_stop(&r);
}

struct call {
	struct raw *r;
	struct pair *p;
	int ret;
	pthread_t thread;
	pid_t tid;
};

static void *sender(void *arg)
{
	struct call *c = arg;

	__atomic_store_n(&c->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	c->ret = chan_send(&c->r->c, c->r->id, 0, PAGE, c->p->out, NULL);
	return NULL;
}

/* The first is made to stay in the call. Who receives there is not in the way. */
TEST(two_at_once_on_one_socket)
{
	struct call first = { 0 };
	struct rmem_request q;
	struct holder h;
	struct raw r;
	struct pair p;
	__u64 n;

	raw_start(&r, &plain);
	EXPECT_RET(chan_prefetch(&r.c, r.id, 0, 0, CHUNK), 1);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	pattern_fill(wire, 0, CHUNK);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, wire, 0), 0);
	EXPECT_RET(chan_prefetch(&r.c, r.id, 0, CHUNK, CHUNK), 1);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	p = connected(TCP4);
	if (!holder_start(&h, p.out))
		SKIP("no userfaultfd: %s", strerrorname_np(errno));
	first.r = &r;
	first.p = &p;
	ASSERT_EQ(pthread_create(&first.thread, NULL, sender, &first), 0);
	ASSERT_SOON(asleep(__atomic_load_n(&first.tid, __ATOMIC_SEQ_CST)));

	EXPECT_RET(chan_send(&r.c, r.id, 0, PAGE, p.out, &n), -EBUSY);
	EXPECT_EQ(n, 0);

	holder_stop(&h);
	pthread_join(first.thread, NULL);
	EXPECT_RET(first.ret, 0);
	/* The page of the one who held it, and then ours. */
	ASSERT_SOON((n = drain(&p, n, 2 * PAGE)) == 2 * PAGE);
	EXPECT_EQ(bytes_diff(wire, 0, PAGE), -1);
	EXPECT_EQ(pattern_diff(wire + PAGE, 0, PAGE), -1);
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, CHUNK, p.out, 0, 0, &n), -EAGAIN);
	send_whole(&r, 0, CHUNK, &p);
	disconnect(&p);
	raw_stop(&r);
}

/*
 * What ends in the middle
 */

TEST(peer_closes)
{
	struct rmem_request q;
	struct raw r;
	struct pair p;
	__u64 sent;
	int f, ret;

	for (f = 0; f < FAMILIES; f++) {
		context("%s", family_names[f]);
		start(&r, &plain);
		p = connected(f);
		rewrite(&r, 0, CHUNK, 1);
		push(&r, &q);
		EXPECT_RET(chan_send(&r.c, r.id, 0, 1000, p.out, &sent), 0);
		ASSERT_SOON(drain(&p, 0, 1000) == 1000);
		close(p.in);
		/* TCP learns of it by the answer to what it sends. No signal comes. */
		ASSERT_SOON((ret = chan_send(&r.c, r.id, 1000, 1, p.out, &sent)) != 0);
		EXPECT_RET(ret, -EPIPE);
		EXPECT_EQ(sent, 0);
		close(p.out);
		/* By another connection, from the start. */
		p = connected(f);
		send_whole(&r, 0, CHUNK, &p);
		durable(&r, &q);
		disconnect(&p);
		raw_stop(&r);
	}
}

TEST(connection_fails)
{
	struct rmem_ioc_send a = { .size = sizeof(a), .length = PAGE };
	struct linger now = { .l_onoff = 1 };
	struct pollfd gone = { 0 };
	struct raw r;
	struct pair p;

	start(&r, &plain);
	p = connected(TCP4);
	ASSERT_RET(SYS(setsockopt(p.in, SOL_SOCKET, SO_LINGER, &now, sizeof(now))), 0);
	close(p.in);
	gone.fd = p.out;
	ASSERT_EQ(poll(&gone, 1, 20000), 1);
	a.region_id = r.id;
	a.fd = p.out;
	EXPECT_RET(SYS(ioctl(r.c.fd, RMEM_IOC_SEND, &a)), -ECONNRESET);
	EXPECT_EQ(a.error, ECONNRESET);
	EXPECT_EQ(a.sent, 0);
	/* Told once, as any socket does. */
	EXPECT_RET(SYS(ioctl(r.c.fd, RMEM_IOC_SEND, &a)), -EPIPE);
	EXPECT_EQ(a.error, 0);
	close(p.out);
	raw_stop(&r);
}

/* A message of which the half is out, and then the write is over. */
TEST(deadline_passes)
{
	struct rmem_write_run runs[16];
	struct region_conf conf = plain;
	struct rmem_request q;
	struct raw r;
	struct pair p;
	__u64 sent;

	conf.sync_ms = 500;
	start(&r, &conf);
	p = connected(TCP4);
	rewrite(&r, 0, CHUNK, 1);
	push(&r, &q);
	EXPECT_RET(chan_send(&r.c, r.id, 0, 30001, p.out, &sent), 0);
	ASSERT_SOON(drain(&p, 0, 30001) == 30001);
	ASSERT_SOON(chan_runs(&r.c, q.cookie, runs, ARRAY_SIZE(runs)) == -ENOENT);
	ASSERT_SOON(STAT(r.id, writeback) == 0);
	EXPECT_EQ(STAT(r.id, dirty), CHUNK);
	EXPECT_RET(chan_complete(&r.c, &q.cookie, 1, 0), 1);
	/* No program can have it evicted, and so the rest can be sent. */
	EXPECT_RET(region_drop(r.fd, 0, 0), 0);
	send_whole(&r, 30001, CHUNK - 30001, &p);
	EXPECT_EQ(STAT(r.id, dirty), CHUNK);
	region_set(r.id, 30000, 30000, RMEM_ON_LOSS_WAIT);
	push(&r, &q);
	send_whole(&r, 0, CHUNK, &p);
	durable(&r, &q);
	EXPECT_EQ(STAT(r.id, dirty), 0);
	disconnect(&p);
	raw_stop(&r);
}

struct servant {
	struct raw *r;
	struct pair *p;
};

/* A daemon of its own, which sends for as long as it lives. */
static int servant(void *arg)
{
	struct servant *s = arg;
	struct rmem_request q;
	struct chan c;
	__u64 at = 0, sent;

	munmap(s->r->map, s->r->size);
	if (chan_open(&c, 64) || chan_serve(&c, s->r->id) ||
	    chan_state(&c, s->r->id, RMEM_STATE_ACTIVE, "") || !chan_next(&c, &q, 20000))
		return 1;
	for (;;) {
		chan_send(&c, s->r->id, q.offset + at, q.length - at, s->p->out, &sent);
		at = (at + sent) % q.length;
	}
}

TEST_SECONDS(daemon_is_killed, 120)
{
	struct rmem_request q;
	struct servant s;
	struct raw r;
	struct pair p;
	long long before;
	__u64 sent;
	pid_t pid;
	int i;

	start(&r, &plain);
	rewrite(&r, CHUNK, CHUNK, 1);
	push(&r, &q);
	for (i = 0; i < 9; i++) {
		chan_close(&r.c);
		p = connected(i % FAMILIES);
		s = (struct servant){ &r, &p };
		before = debugfs_number(&r, "sent");
		pid = spawn(servant, &s);
		ASSERT_SOON(debugfs_number(&r, "sent") > before);
		/* Every other time while there is room again and again. */
		if (i % 2)
			drain(&p, 0, sizeof(wire));
		kill(pid, SIGKILL);
		EXPECT_EQ(WTERMSIG(reap(pid, 20000)), SIGKILL);
		EXPECT_EQ(STAT(r.id, state), RMEM_STATE_QUIESCED);
		EXPECT_EQ(STAT(r.id, writeback), CHUNK);
		disconnect(&p);
		ASSERT_RET(chan_open(&r.c, 64), 0);
		ASSERT_RET(chan_serve(&r.c, r.id), 0);
	}
	p = connected(TCP4);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	EXPECT_EQ(q.op, RMEM_OP_WRITE);
	EXPECT_EQ(q.flags & RMEM_REQ_AGAIN, RMEM_REQ_AGAIN);
	send_whole(&r, CHUNK, CHUNK, &p);
	durable(&r, &q);
	EXPECT_EQ(STAT(r.id, writeback) + STAT(r.id, dirty), 0);
	/* Who does not serve it has nothing to send. */
	chan_close(&r.c);
	ASSERT_RET(chan_open(&r.c, 64), 0);
	EXPECT_RET(chan_send(&r.c, r.id, 0, 1, p.out, &sent), -ENOTCONN);
	disconnect(&p);
	raw_stop(&r);
}

/* A buffer whose second page comes only when the test wants it to. */
struct slow_copy {
	struct raw *r;
	__u64 cookie;
	char *buf;
	int ret;
};

static void *slow_copier(void *arg)
{
	struct slow_copy *c = arg;
	struct rmem_run runs[4];

	c->ret = chan_writeout(&c->r->c, c->cookie, c->buf, 3 * PAGE, runs, 4, NULL);
	return NULL;
}

/* Not even a region that vanishes beneath it confuses who takes its bytes. */
TEST(unmade_in_the_middle)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_zeropage zero = { 0 };
	struct uffdio_api api = { .api = UFFD_API };
	struct pollfd fault = { .events = POLLIN };
	struct rmem_write_run runs[4];
	struct slow_copy c = { 0 };
	struct rmem_request q;
	pthread_t thread;
	__u64 sent, lost;
	struct raw r;
	struct pair p;

	fault.fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fault.fd < 0)
		SKIP("no userfaultfd: %s", strerrorname_np(errno));
	c.buf = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(c.buf != MAP_FAILED);
	ASSERT_RET(SYS(ioctl(fault.fd, UFFDIO_API, &api)), 0);
	reg.range = (struct uffdio_range){ (unsigned long)c.buf + PAGE, PAGE };
	ASSERT_RET(SYS(ioctl(fault.fd, UFFDIO_REGISTER, &reg)), 0);

	start(&r, &plain);
	p = connected(UNIX);
	rewrite(&r, 0, 3 * PAGE, 1);
	push(&r, &q);
	EXPECT_RET(chan_send(&r.c, r.id, 0, 100, p.out, &sent), 0);
	c.r = &r;
	c.cookie = q.cookie;
	ASSERT_EQ(pthread_create(&thread, NULL, slow_copier, &c), 0);
	ASSERT_EQ(poll(&fault, 1, 20000), 1);
	EXPECT_RET(region_del_force(r.id, &lost), 0);
	EXPECT_EQ(lost, 3 * PAGE);
	zero.range = reg.range;
	ASSERT_RET(SYS(ioctl(fault.fd, UFFDIO_ZEROPAGE, &zero)), 0);
	pthread_join(thread, NULL);
	EXPECT_RET(c.ret, -ENOENT);
	EXPECT_RET(chan_runs(&r.c, q.cookie, runs, 4), -ENOENT);
	EXPECT_RET(chan_send(&r.c, r.id, 100, 100, p.out, &sent), -ENOENT);
	EXPECT_EQ(sent, 0);
	disconnect(&p);
	close(fault.fd);
	munmap(c.buf, 3 * PAGE);
	munmap(r.map, r.size);
	close(r.fd);
	chan_close(&r.c);
}

/*
 * kTLS
 */

TEST_SECONDS(ktls, 180)
{
	struct region_conf conf = {
		.size = RMEM_CHUNK_MAX, .chunk = RMEM_CHUNK_MAX, .order = -1,
	};
	int bytes = 100000;
	struct rmem_request q;
	struct raw r;
	struct pair p;

	if (system("modprobe -q tls"))
		SKIP("no module tls: this kernel has no kTLS");
	if (!tls_pair(&p))
		SKIP("kTLS does not take AES-GCM-128 keys: %s", strerrorname_np(errno));
	start(&r, &conf);
	rewrite(&r, 0, conf.size, 1);
	push(&r, &q);
	/* Whole records, and parts of one, behind what the caller has sent himself. */
	send_whole(&r, 0, 65536, &p);
	ASSERT_EQ(SYS(send(p.out, "header", 6, MSG_MORE)), 6);
	EXPECT_RET(chan_send(&r.c, r.id, 70001, 9, p.out, NULL), 0);
	ASSERT_EQ(SYS(recv(p.in, wire, 15, MSG_WAITALL)), 15);
	EXPECT_EQ(memcmp(wire, "header", 6), 0);
	EXPECT_EQ(memcmp(wire + 6, r.map + 70001, 9), 0);
	/* More than it has room for. */
	ASSERT_RET(SYS(setsockopt(p.out, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes))), 0);
	send_whole(&r, 1, conf.size - 1, &p);
	durable(&r, &q);
	EXPECT_EQ(STAT(r.id, dirty), 0);
	disconnect(&p);
	raw_stop(&r);
}
