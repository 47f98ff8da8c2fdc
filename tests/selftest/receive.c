// SPDX-License-Identifier: GPL-2.0-only
/*
 * RMEM_IOC_RECEIVE: a fetch's bytes come out of a socket, all of them and no
 * others, however they arrive; and whatever ends before the last one is there,
 * nothing of it is ever seen.
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

/* Somebody reads at @at; his fetch is @q. */
static void ask(struct raw *r, struct reader *d, __u64 at, struct rmem_request *q)
{
	*d = (struct reader){ .r = r, .at = at };
	ASSERT_EQ(pthread_create(&d->thread, NULL, reader_thread, d), 0);
	ASSERT_EQ(chan_next(&r->c, q, 20000), 1);
	ASSERT_EQ(q->op, RMEM_OP_FETCH);
}

/* He has got the byte of the pattern, as has everybody else. */
static void answered(struct reader *d, const struct rmem_request *q)
{
	pthread_join(d->thread, NULL);
	EXPECT_RET(d->ret, 0);
	EXPECT_EQ(d->seen, pattern(d->at));
	EXPECT_EQ(pattern_diff(d->r->map + q->offset, q->offset, q->length), -1);
}

static unsigned char wire[CHUNK];

/* The pattern of the region's bytes from @at on. */
static void send_pattern(struct pair *p, __u64 at, size_t len)
{
	pattern_fill(wire, at, len);
	ASSERT_EQ(SYS(send(p->out, wire, len, 0)), len);
}

/* On its way over loopback it may still be. */
static void arrived(struct pair *p)
{
	struct pollfd in = { .fd = p->in, .events = POLLIN };

	ASSERT_EQ(poll(&in, 1, 20000), 1);
}

/* Until all of the piece has come: one call need not see everything sent. */
static int receive_all(struct raw *r, const struct rmem_request *q, __u64 at, __u64 len,
		       struct pair *p, __u32 flags, __u32 checksum)
{
	__u64 got, end = at + len;
	int ret;

	do {
		arrived(p);
		ret = chan_receive(&r->c, q->cookie, at, end - at, p->in, flags, checksum, &got);
		at += got;
	} while (ret == -EAGAIN && at < end);
	return ret;
}

/*
 * What comes
 */

TEST(every_family)
{
	struct region_conf conf = { .size = SIZE + 5000 };
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	int f, i;

	for (f = 0; f < FAMILIES; f++) {
		for (conf.order = 0; conf.order <= 4; conf.order += 4) {
			context("%s, order %d", family_names[f], conf.order);
			raw_start(&r, &conf);
			p = connected(f);
			/* The last chunk ends within a page. */
			for (i = 0; i < 5; i++) {
				ask(&r, &d, i * CHUNK + 4999, &q);
				EXPECT_EQ(q.length, i < 4 ? CHUNK : 5000);
				send_pattern(&p, q.offset, q.length);
				EXPECT_RET(receive_all(&r, &q, 0, q.length, &p, 0, 0), 0);
				answered(&d, &q);
			}
			EXPECT_EQ(bytes_diff(r.map + conf.size, 0, 2 * PAGE - 5000), -1);
			EXPECT_EQ(debugfs_number(&r, "received"), conf.size);
			EXPECT_GE(STAT(r.id, fetched), conf.size);
			disconnect(&p);
			raw_stop(&r);
		}
	}
}

TEST(largest_chunk_of_smallest_folios)
{
	struct region_conf conf = { .size = RMEM_CHUNK_MAX, .chunk = RMEM_CHUNK_MAX };
	__u64 at = 0, sent = 0, got;
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	ssize_t n;
	int ret;

	raw_start(&r, &conf);
	p = connected(TCP4);
	ask(&r, &d, 77 * PAGE, &q);
	ASSERT_EQ(q.length, RMEM_CHUNK_MAX);
	do {
		pattern_fill(wire, sent, CHUNK);
		n = q.length - sent < CHUNK ? q.length - sent : CHUNK;
		n = n ? send(p.out, wire, n, MSG_DONTWAIT) : 0;
		sent += n > 0 ? n : 0;
		ret = chan_receive(&r.c, q.cookie, at, q.length - at, p.in, 0, 0, &got);
		at += got;
		EXPECT_EQ(STAT(r.id, resident), at == q.length ? q.length : 0);
	} while (ret == -EAGAIN);
	EXPECT_RET(ret, 0);
	answered(&d, &q);
	disconnect(&p);
	raw_stop(&r);
}

TEST(byte_by_byte)
{
	struct region_conf conf = { .size = 2 * PAGE - 100, .order = -1 };
	__u64 at, got, before, step;
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;

	raw_start(&r, &conf);
	p = connected(UNIX);
	ask(&r, &d, PAGE + 1, &q);
	ASSERT_EQ(q.length, conf.size);
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, q.length, p.in, 0, 0, &got), -EAGAIN);
	EXPECT_EQ(got, 0);
	for (at = 0; at < q.length; at += step) {
		/* Far from where anything begins or ends, somewhat faster. */
		step = at % PAGE < 100 || at % PAGE > PAGE - 250 ? 1 : 37;
		send_pattern(&p, at, step);
		before = STAT(r.id, resident);
		ASSERT_RET(chan_receive(&r.c, q.cookie, at, q.length - at, p.in, 0, 0, &got),
			   at + step < q.length ? -EAGAIN : 0);
		ASSERT_EQ(got, step);
		ASSERT_EQ(before, 0);
	}
	answered(&d, &q);
	EXPECT_EQ(bytes_diff(r.map + conf.size, 0, 100), -1);
	disconnect(&p);
	raw_stop(&r);
}

/* The daemon has received the beginning itself, and what follows is not ours. */
TEST(takes_turns_with_fill_and_leaves_the_rest)
{
	unsigned char next[64], seen[64];
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	__u64 got;

	raw_start(&r, &plain);
	p = connected(TCP4);
	ask(&r, &d, CHUNK, &q);
	pattern_fill(wire, CHUNK, CHUNK);
	memset(next, 0x5a, sizeof(next));
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, 1001, wire, 0), 0);
	ASSERT_EQ(SYS(send(p.out, wire + 1001, 30000, 0)), 30000);
	EXPECT_RET(receive_all(&r, &q, 1001, 30000, &p, 0, 0), 0);
	EXPECT_EQ(STAT(r.id, resident), 0);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 31001, 5, wire + 31001, 0), 0);
	ASSERT_EQ(SYS(send(p.out, wire + 31006, CHUNK - 31006, 0)), CHUNK - 31006);
	ASSERT_EQ(SYS(send(p.out, next, sizeof(next), 0)), sizeof(next));
	EXPECT_RET(receive_all(&r, &q, 31006, CHUNK - 31006, &p, 0, 0), 0);
	answered(&d, &q);
	EXPECT_EQ(SYS(recv(p.in, seen, sizeof(seen), MSG_WAITALL)), sizeof(seen));
	EXPECT_EQ(memcmp(seen, next, sizeof(seen)), 0);
	/* Nobody wants any more of it. */
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, 1, p.in, 0, 0, &got), -ENOENT);
	disconnect(&p);
	raw_stop(&r);
}

TEST(marked)
{
	struct rmem_request q;
	struct pair p;
	struct raw r;

	raw_start(&r, &plain);
	p = connected(UNIX);
	EXPECT_RET(chan_prefetch(&r.c, r.id, 0, CHUNK, CHUNK), 1);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	send_pattern(&p, CHUNK, CHUNK);
	EXPECT_RET(receive_all(&r, &q, 0, CHUNK, &p, RMEM_FILL_MARK, 0), 0);
	EXPECT_EQ(chan_next(&r.c, &q, 0), 0);
	EXPECT_EQ(pattern_diff(r.map + CHUNK, CHUNK, CHUNK), -1);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	EXPECT_EQ(q.op, RMEM_OP_HIT);
	EXPECT_EQ(q.demand_offset / CHUNK, 1);
	disconnect(&p);
	raw_stop(&r);
}

TEST(checksum)
{
	struct region_conf conf = { .size = CHUNK + 5000, .order = -1 };
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	__u32 crc;
	int i;

	EXPECT_EQ(crc32c_of((const unsigned char *)"123456789", 9), 0xe3069283);
	raw_start(&r, &conf);
	p = connected(TCP4);
	for (i = 0; i < 2; i++) {
		ask(&r, &d, i * CHUNK + 1, &q);
		pattern_fill(wire, q.offset, q.length);
		crc = crc32c_of(wire, q.length);
		/* One bit in the middle is another one. */
		wire[2500] ^= 4;
		ASSERT_EQ(SYS(send(p.out, wire, q.length, 0)), q.length);
		EXPECT_RET(receive_all(&r, &q, 0, q.length, &p, RMEM_RECEIVE_CHECKSUM, crc),
			   -EBADMSG);
		EXPECT_EQ(STAT(r.id, resident), i * CHUNK);
		EXPECT_SOON(STAT(r.id, waiting) == 1);
		/* Once more, a part of it by fill: the sum is that of all. */
		wire[2500] ^= 4;
		EXPECT_RET(chan_fill(&r.c, q.cookie, 2000, 1000, wire, 0), -ESPIPE);
		EXPECT_RET(chan_fill(&r.c, q.cookie, 0, 1000, wire, 0), 0);
		ASSERT_EQ(SYS(send(p.out, wire + 1000, q.length - 1000, 0)), q.length - 1000);
		EXPECT_RET(receive_all(&r, &q, 1000, q.length - 1000, &p,
				       RMEM_RECEIVE_CHECKSUM, crc), 0);
		answered(&d, &q);
	}
	disconnect(&p);
	raw_stop(&r);
}

/* Descriptors that come along are closed, not kept and not complained about. */
TEST(descriptors_are_dropped)
{
	char space[CMSG_SPACE(sizeof(int))] __aligned(8) = { 0 };
	struct iovec io = { wire, CHUNK };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	int fds[2];
	char byte;

	raw_start(&r, &plain);
	p = connected(UNIX);
	ask(&r, &d, 0, &q);
	ASSERT_RET(SYS(pipe(fds)), 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fds[1], sizeof(int));
	pattern_fill(wire, 0, CHUNK);
	ASSERT_EQ(SYS(sendmsg(p.out, &m, 0)), CHUNK);
	close(fds[1]);
	EXPECT_RET(receive_all(&r, &q, 0, CHUNK, &p, 0, 0), 0);
	answered(&d, &q);
	/* No writer is left. */
	EXPECT_EQ(SYS(read(fds[0], &byte, 1)), 0);
	close(fds[0]);
	disconnect(&p);
	raw_stop(&r);
}

/*
 * What is refused
 */

TEST(values)
{
	struct rmem_ioc_receive a = { .size = sizeof(a) };
	struct rmem_request q, w;
	struct reader d;
	struct raw r;
	struct pair p;
	__u64 got;
	int left;

	raw_start(&r, &plain);
	p = connected(UNIX);
	ask(&r, &d, 0, &q);
	send_pattern(&p, 0, CHUNK);
	EXPECT_RET(chan_receive(&r.c, 0, 0, CHUNK, p.in, 0, 0, NULL), -ENOENT);
	EXPECT_RET(chan_receive(&r.c, q.cookie ^ 1, 0, CHUNK, p.in, 0, 0, NULL), -ENOENT);
	EXPECT_RET(chan_receive(&r.c, q.cookie ^ 1ull << 63, 0, CHUNK, p.in, 0, 0, NULL), -ENOENT);
	EXPECT_RET(chan_receive(&r.c, q.cookie, PAGE, PAGE, p.in, 0, 0, &got), -ESPIPE);
	EXPECT_RET(chan_receive(&r.c, q.cookie, ~0ull, PAGE, p.in, 0, 0, &got), -ESPIPE);
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, 0, p.in, 0, 0, &got), -EINVAL);
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, CHUNK + 1, p.in, 0, 0, &got), -EINVAL);
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, ~0ull, p.in, 0, 0, &got), -EINVAL);
	/* A checksum that is not to be looked at. */
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, CHUNK, p.in, 0, 1, &got), -EINVAL);
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, CHUNK, p.in, RMEM_FILL_ZERO, 0, &got),
		   -EOPNOTSUPP);
	/* Not a byte has gone. */
	EXPECT_RET(SYS(ioctl(p.in, FIONREAD, &left)), 0);
	EXPECT_EQ(left, CHUNK);
	/* What the kernel answers, it answers in full. */
	a.cookie = q.cookie;
	a.length = CHUNK;
	a.fd = p.in;
	a.received = a.error = ~0u;
	EXPECT_RET(SYS(ioctl(r.c.fd, RMEM_IOC_RECEIVE, &a)), 0);
	EXPECT_EQ(a.received, CHUNK);
	EXPECT_EQ(a.error, 0);
	answered(&d, &q);

	/* A write is no fetch. */
	poke(r.map, 1);
	EXPECT_RET(chan_push(&r.c, r.id), 0);
	ASSERT_EQ(chan_next(&r.c, &w, 20000), 1);
	ASSERT_EQ(w.op, RMEM_OP_WRITE);
	EXPECT_RET(chan_receive(&r.c, w.cookie, 0, CHUNK, p.in, 0, 0, NULL), -EINVAL);
	EXPECT_RET(chan_complete(&r.c, &w.cookie, 1, 0), 0);
	disconnect(&p);
	raw_stop(&r);
}

TEST(feature_is_announced)
{
	struct rmem_ioc_setup s = {
		.size = sizeof(s), .ring_entries = 64, .uapi_major = RMEM_UAPI_MAJOR,
		.features = RMEM_FEATURE_RECEIVE,
	};
	int fd = ASSERT_OK(SYS(open(CONTROL_PATH, O_RDWR | O_CLOEXEC)));

	ASSERT_RET(SYS(ioctl(fd, RMEM_IOC_SETUP, &s)), 0);
	EXPECT_EQ(s.features, RMEM_FEATURE_RECEIVE);
	close(fd);
}

static int refused(struct raw *r, const struct rmem_request *q, int fd)
{
	__u64 got = ~0ull;
	int ret = chan_receive(&r->c, q->cookie, 0, CHUNK, fd, 0, 0, &got);

	EXPECT_EQ(got, 0);
	return ret;
}

TEST(no_such_sockets)
{
	static const struct { int family, type; } others[] = {
		{ AF_INET, SOCK_DGRAM }, { AF_INET6, SOCK_DGRAM }, { AF_UNIX, SOCK_DGRAM },
		{ AF_UNIX, SOCK_SEQPACKET }, { AF_NETLINK, SOCK_RAW },
		/* connected to nobody */
		{ AF_INET, SOCK_STREAM }, { AF_INET6, SOCK_STREAM }, { AF_UNIX, SOCK_STREAM },
	};
	struct sockaddr_storage at;
	struct rmem_request q;
	struct reader d;
	socklen_t len;
	struct raw r;
	struct pair p;
	int fd, fds[2];
	size_t i;

	raw_start(&r, &plain);
	ask(&r, &d, 0, &q);
	EXPECT_RET(refused(&r, &q, -1), -EINVAL);
	EXPECT_RET(refused(&r, &q, 1 << 20), -EINVAL);
	EXPECT_RET(refused(&r, &q, r.c.fd), -EINVAL);
	EXPECT_RET(refused(&r, &q, r.fd), -EINVAL);
	ASSERT_RET(SYS(pipe(fds)), 0);
	EXPECT_RET(refused(&r, &q, fds[0]), -EINVAL);
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		context("family %d type %d", others[i].family, others[i].type);
		fd = ASSERT_OK(SYS(socket(others[i].family, others[i].type, 0)));
		EXPECT_RET(refused(&r, &q, fd), -EINVAL);
		close(fd);
	}
	context("seqpacket pair");
	ASSERT_RET(SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds)), 0);
	ASSERT_EQ(SYS(send(fds[1], wire, CHUNK, 0)), CHUNK);
	EXPECT_RET(refused(&r, &q, fds[0]), -EINVAL);
	context("listening");
	fd = listener(TCP4, &at, &len);
	EXPECT_RET(refused(&r, &q, fd), -EINVAL);
	close(fd);
	context(" ");
	/* None of them did any harm. */
	p = connected(TCP4);
	send_pattern(&p, 0, CHUNK);
	EXPECT_RET(receive_all(&r, &q, 0, CHUNK, &p, 0, 0), 0);
	answered(&d, &q);
	disconnect(&p);
	raw_stop(&r);
}

TEST(sockets_of_others)
{
	struct rmem_request q;
	struct reader d;
	struct pair p;
	struct raw r;
	int fd;

	raw_start(&r, &plain);
	ask(&r, &d, 0, &q);
	fd = foreign_socket();
	EXPECT_RET(refused(&r, &q, fd), -EINVAL);
	/* It is a good socket otherwise. */
	EXPECT_EQ(SYS(recv(fd, wire, CHUNK, MSG_DONTWAIT)), FOREIGN_BYTES);
	close(fd);
	p = connected(UNIX);
	send_pattern(&p, 0, CHUNK);
	EXPECT_RET(receive_all(&r, &q, 0, CHUNK, &p, 0, 0), 0);
	answered(&d, &q);
	disconnect(&p);
	raw_stop(&r);
}

struct call {
	struct raw *r;
	struct pair *p;
	struct rmem_request *q;
	int ret;
	pthread_t thread;
	pid_t tid;
};

static void *receiver(void *arg)
{
	struct call *c = arg;

	__atomic_store_n(&c->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	c->ret = chan_receive(&c->r->c, c->q->cookie, 0, CHUNK, c->p->in, 0, 0, NULL);
	return NULL;
}

/* The first is made to stay in the call. */
TEST(two_at_once_on_one_socket)
{
	struct call first = { 0 };
	struct rmem_request q[2];
	struct reader d[2];
	struct holder h;
	struct raw r;
	struct pair p;
	__u64 got;

	raw_start(&r, &plain);
	p = connected(TCP4);
	ask(&r, &d[0], 0, &q[0]);
	ask(&r, &d[1], CHUNK, &q[1]);
	send_pattern(&p, 0, CHUNK);
	arrived(&p);
	if (!holder_start(&h, p.in))
		SKIP("no userfaultfd: %s", strerrorname_np(errno));
	first.r = &r;
	first.p = &p;
	first.q = &q[0];
	ASSERT_EQ(pthread_create(&first.thread, NULL, receiver, &first), 0);
	ASSERT_SOON(asleep(__atomic_load_n(&first.tid, __ATOMIC_SEQ_CST)));

	EXPECT_RET(chan_receive(&r.c, q[1].cookie, 0, CHUNK, p.in, 0, 0, &got), -EBUSY);
	EXPECT_EQ(got, 0);

	holder_stop(&h);
	pthread_join(first.thread, NULL);
	EXPECT_RET(first.ret, 0);
	answered(&d[0], &q[0]);
	/* Now it is the other one's turn. */
	send_pattern(&p, CHUNK, CHUNK);
	EXPECT_RET(receive_all(&r, &q[1], 0, CHUNK, &p, 0, 0), 0);
	answered(&d[1], &q[1]);
	disconnect(&p);
	raw_stop(&r);
}

/*
 * What ends in the middle
 */

TEST(peer_closes)
{
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	__u64 got, at;
	int f, ret;

	for (f = 0; f < FAMILIES; f++) {
		context("%s", family_names[f]);
		raw_start(&r, &plain);
		p = connected(f);
		ask(&r, &d, 0, &q);
		send_pattern(&p, 0, 30001);
		close(p.out);
		at = 0;
		do {
			arrived(&p);
			ret = chan_receive(&r.c, q.cookie, at, CHUNK - at, p.in, 0, 0, &got);
			at += got;
		} while (ret == -EAGAIN);
		EXPECT_RET(ret, -EPIPE);
		EXPECT_EQ(at, 30001);
		EXPECT_RET(chan_receive(&r.c, q.cookie, at, 1, p.in, 0, 0, &got), -EPIPE);
		close(p.in);
		EXPECT_SOON(STAT(r.id, waiting) == 1);
		/* By another connection, from the start. */
		p = connected(f);
		send_pattern(&p, 0, CHUNK);
		EXPECT_RET(receive_all(&r, &q, 0, CHUNK, &p, 0, 0), 0);
		answered(&d, &q);
		disconnect(&p);
		raw_stop(&r);
	}
}

TEST(connection_fails)
{
	struct rmem_ioc_receive a = { .size = sizeof(a), .length = CHUNK };
	struct linger now = { .l_onoff = 1 };
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;

	raw_start(&r, &plain);
	p = connected(TCP4);
	ask(&r, &d, 0, &q);
	send_pattern(&p, 0, 100);
	EXPECT_RET(receive_all(&r, &q, 0, 100, &p, 0, 0), 0);
	ASSERT_RET(SYS(setsockopt(p.out, SOL_SOCKET, SO_LINGER, &now, sizeof(now))), 0);
	close(p.out);
	arrived(&p);
	a.cookie = q.cookie;
	a.fd = p.in;
	a.offset = 100;
	a.length = CHUNK - 100;
	EXPECT_RET(SYS(ioctl(r.c.fd, RMEM_IOC_RECEIVE, &a)), -ECONNRESET);
	EXPECT_EQ(a.error, ECONNRESET);
	EXPECT_EQ(a.received, 0);
	close(p.in);
	pattern_fill(wire, 0, CHUNK);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, wire, 0), 0);
	answered(&d, &q);
	raw_stop(&r);
}

struct servant {
	struct raw *r;
	struct pair *p;
};

/* A daemon of its own, which receives for as long as it lives. */
static int servant(void *arg)
{
	struct servant *s = arg;
	struct rmem_request q;
	struct chan c;
	__u64 at = 0, got;

	munmap(s->r->map, s->r->size);
	if (chan_open(&c, 64) || chan_serve(&c, s->r->id) ||
	    chan_state(&c, s->r->id, RMEM_STATE_ACTIVE, "") || !chan_next(&c, &q, 20000))
		return 1;
	for (;;) {
		chan_receive(&c, q.cookie, at, q.length - at, s->p->in, 0, 0, &got);
		at += got;
	}
}

TEST_SECONDS(daemon_is_killed, 120)
{
	unsigned int seed = harness_seed();
	struct rmem_request q;
	struct servant s;
	struct reader d;
	struct raw r;
	struct pair p;
	long long before;
	size_t n = 0;
	__u64 got;
	pid_t pid;
	int i;

	raw_start(&r, &plain);
	ask(&r, &d, CHUNK + 5, &q);
	for (i = 0; i < 10; i++) {
		chan_close(&r.c);
		p = connected(i % FAMILIES);
		s = (struct servant){ &r, &p };
		pid = spawn(servant, &s);
		/* All but the end of it, and wrong. */
		n = 1 + rand_r(&seed) % (CHUNK - 1);
		memset(wire, 0xbb, n);
		before = debugfs_number(&r, "received");
		EXPECT_EQ(SYS(send(p.out, wire, n, 0)), n);
		if (i % 2)
			ASSERT_SOON(debugfs_number(&r, "received") == before + (long long)n);
		kill(pid, SIGKILL);
		EXPECT_EQ(WTERMSIG(reap(pid, 20000)), SIGKILL);
		ASSERT_SOON(STAT(r.id, state) == RMEM_STATE_QUIESCED);
		EXPECT_SOON(STAT(r.id, waiting) == 1);
		disconnect(&p);
		ASSERT_RET(chan_open(&r.c, 64), 0);
		ASSERT_RET(chan_serve(&r.c, r.id), 0);
	}
	p = connected(TCP4);
	EXPECT_RET(chan_receive(&r.c, q.cookie, 0, CHUNK, p.in, 0, 0, &got), -ENOENT);
	ASSERT_EQ(chan_next(&r.c, &q, 20000), 1);
	EXPECT_EQ(q.flags & RMEM_REQ_AGAIN, RMEM_REQ_AGAIN);
	/* The cursor of the dead is forgotten. */
	EXPECT_RET(chan_receive(&r.c, q.cookie, n, 1, p.in, 0, 0, &got), -ESPIPE);
	send_pattern(&p, CHUNK, CHUNK);
	EXPECT_RET(receive_all(&r, &q, 0, CHUNK, &p, 0, 0), 0);
	answered(&d, &q);
	disconnect(&p);
	raw_stop(&r);
}

TEST(deadline_passes)
{
	struct region_conf conf = plain;
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	__u64 got;
	int left, ret;

	conf.on_loss = RMEM_ON_LOSS_ERROR;
	for (conf.fault_ms = 300;; conf.fault_ms *= 4) {
		raw_start(&r, &conf);
		p = connected(UNIX);
		ask(&r, &d, 0, &q);
		send_pattern(&p, 0, CHUNK);
		ret = receive_all(&r, &q, 0, 1000, &p, 0, 0);
		pthread_join(d.thread, NULL);
		EXPECT_RET(d.ret, -EFAULT);
		/* Unless it had passed before the first byte was there. */
		if (ret != -ENOENT || conf.fault_ms > 10000)
			break;
		disconnect(&p);
		raw_stop(&r);
	}
	EXPECT_RET(ret, 0);
	/* It is over; the rest of its bytes is nobody's. */
	EXPECT_RET(chan_receive(&r.c, q.cookie, 1000, CHUNK - 1000, p.in, 0, 0, &got), -ENOENT);
	EXPECT_EQ(got, 0);
	EXPECT_RET(SYS(ioctl(p.in, FIONREAD, &left)), 0);
	EXPECT_EQ(left, CHUNK - 1000);
	EXPECT_EQ(STAT(r.id, resident), 0);
	disconnect(&p);
	raw_stop(&r);
}

static void *puncher(void *arg)
{
	struct raw *r = arg;

	return (void *)(long)region_punch(r->fd, 0, PAGE);
}

/* What was read before the punch must not be seen after it. */
TEST(punch_overtakes)
{
	struct rmem_request q, z;
	struct reader d;
	pthread_t t;
	struct raw r;
	struct pair p;
	void *ret;

	raw_start(&r, &plain);
	p = connected(TCP4);
	ask(&r, &d, 0, &q);
	send_pattern(&p, 0, CHUNK);
	EXPECT_RET(receive_all(&r, &q, 0, 5000, &p, 0, 0), 0);
	ASSERT_EQ(pthread_create(&t, NULL, puncher, &r), 0);
	ASSERT_EQ(chan_next(&r.c, &z, 20000), 1);
	ASSERT_EQ(z.op, RMEM_OP_ZERO);
	EXPECT_RET(receive_all(&r, &q, 5000, CHUNK - 5000, &p, 0, 0), 0);
	EXPECT_EQ(STAT(r.id, resident), 0);
	EXPECT_SOON(STAT(r.id, waiting) == 1);
	EXPECT_RET(chan_complete(&r.c, &z.cookie, 1, 0), 0);
	pthread_join(t, &ret);
	EXPECT_RET((long)ret, 0);

	/* Asked again before the store had done it, and therefore once more. */
	pattern_fill(wire, 0, CHUNK);
	memset(wire, 0, PAGE);
	ASSERT_EQ(chan_next(&r.c, &q, 0), 1);
	do {
		EXPECT_EQ(q.op, RMEM_OP_FETCH);
		EXPECT_EQ(q.flags & RMEM_REQ_AGAIN, RMEM_REQ_AGAIN);
		ASSERT_EQ(SYS(send(p.out, wire, CHUNK, 0)), CHUNK);
		EXPECT_RET(receive_all(&r, &q, 0, CHUNK, &p, 0, 0), 0);
	} while (chan_next(&r.c, &q, 0));
	pthread_join(d.thread, NULL);
	EXPECT_EQ(bytes_diff(r.map, 0, PAGE), -1);
	EXPECT_EQ(pattern_diff(r.map + PAGE, PAGE, CHUNK - PAGE), -1);
	disconnect(&p);
	raw_stop(&r);
}

/*
 * kTLS: the module gets plain bytes, and no record that is not data
 */

/* One record of this type. */
static void tls_send(struct pair *p, unsigned char type, const void *bytes, size_t len)
{
	char space[CMSG_SPACE(1)] __aligned(8) = { 0 };
	struct iovec io = { (void *)bytes, len };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_TLS;
	c->cmsg_type = TLS_SET_RECORD_TYPE;
	c->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(c) = type;
	ASSERT_EQ(SYS(sendmsg(p->out, &m, 0)), len);
}

#define TLS_DATA 23
#define TLS_ALERT 21

/* The first to want them has the kernel load its ciphers, and try each of them. */
TEST_SECONDS(ktls, 180)
{
	char space[CMSG_SPACE(1)] __aligned(8);
	unsigned char alert[2] = { 1, 90 }, seen[64];
	struct iovec io = { seen, sizeof(seen) };
	struct msghdr m = {
		.msg_iov = &io, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	__u64 got, at = 0;
	__u32 crc;
	int ret, i;

	if (system("modprobe -q tls"))
		SKIP("no module tls: this kernel has no kTLS");
	if (!tls_pair(&p))
		SKIP("kTLS does not take AES-GCM-128 keys: %s", strerrorname_np(errno));
	raw_start(&r, &plain);
	ask(&r, &d, 0, &q);
	pattern_fill(wire, 0, CHUNK);
	crc = crc32c_of(wire, CHUNK);
	tls_send(&p, TLS_DATA, wire, 10000);
	tls_send(&p, TLS_ALERT, alert, sizeof(alert));
	for (i = 10000; i < CHUNK; i += 12000)
		tls_send(&p, TLS_DATA, wire + i, CHUNK - i < 12000 ? CHUNK - i : 12000);
	tls_send(&p, TLS_DATA, "next", 4);
	do {
		arrived(&p);
		ret = chan_receive(&r.c, q.cookie, at, CHUNK - at, p.in,
				   RMEM_RECEIVE_CHECKSUM, crc, &got);
		at += got;
	} while (ret == -EAGAIN);
	EXPECT_RET(ret, -ENOMSG);
	EXPECT_EQ(at, 10000);
	/* For as long as it is there. */
	EXPECT_RET(chan_receive(&r.c, q.cookie, at, CHUNK - at, p.in,
				RMEM_RECEIVE_CHECKSUM, crc, &got), -ENOMSG);
	EXPECT_EQ(SYS(recvmsg(p.in, &m, 0)), sizeof(alert));
	ASSERT(CMSG_FIRSTHDR(&m));
	EXPECT_EQ(*CMSG_DATA(CMSG_FIRSTHDR(&m)), TLS_ALERT);
	EXPECT_EQ(memcmp(seen, alert, sizeof(alert)), 0);
	EXPECT_RET(receive_all(&r, &q, at, CHUNK - at, &p, RMEM_RECEIVE_CHECKSUM, crc), 0);
	answered(&d, &q);
	EXPECT_EQ(SYS(recv(p.in, seen, sizeof(seen), 0)), 4);
	EXPECT_EQ(memcmp(seen, "next", 4), 0);
	disconnect(&p);
	raw_stop(&r);
}

/* Bytes that the receiver's key does not open: the connection has failed. */
TEST_SECONDS(ktls_damaged, 180)
{
	struct rmem_ioc_receive a = { .size = sizeof(a), .length = CHUNK };
	unsigned char record[5 + 256] = { TLS_DATA, 3, 3, 1, 0 };
	struct rmem_request q;
	struct reader d;
	struct raw r;
	struct pair p;
	int ret;

	if (system("modprobe -q tls"))
		SKIP("no module tls: this kernel has no kTLS");
	p = connected(TCP4);
	if (setsockopt(p.in, IPPROTO_TCP, TCP_ULP, "tls", 4) || !tls_set(p.in, TLS_RX))
		SKIP("kTLS does not take AES-GCM-128 keys: %s", strerrorname_np(errno));
	raw_start(&r, &plain);
	ask(&r, &d, 0, &q);
	ASSERT_EQ(SYS(send(p.out, record, sizeof(record), 0)), sizeof(record));
	a.cookie = q.cookie;
	a.fd = p.in;
	do {
		arrived(&p);
		ret = SYS(ioctl(r.c.fd, RMEM_IOC_RECEIVE, &a));
	} while (ret == -EAGAIN);
	EXPECT_RET(ret, -ECONNRESET);
	EXPECT_EQ(a.error, EBADMSG);
	EXPECT_EQ(a.received, 0);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, (pattern_fill(wire, 0, CHUNK), wire), 0), 0);
	answered(&d, &q);
	disconnect(&p);
	raw_stop(&r);
}
