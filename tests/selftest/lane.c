// SPDX-License-Identifier: GPL-2.0-only
/*
 * RMEM_IOC_LANE: whoever misses a chunk asks for it on the daemon's socket, in the
 * daemon's words; and where he cannot, the daemon is told as if there were no lane.
 */
#include <signal.h>

#include "harness.h"
#include "raw.h"

#define PAGE 4096
#define CHUNK 65536
#define CHUNKS 16
#define SIZE (CHUNKS * CHUNK)
#define NUMBER 77

/* A region, and the two ends of its lane: the daemon's is that where messages go out. */
struct env {
	struct raw r;
	struct pair p;
};

static void env_start(struct env *e, enum family family)
{
	struct region_conf conf = { .size = SIZE, .order = -1 };

	raw_start(&e->r, &conf);
	e->p = connected(family);
}

static void env_stop(struct env *e)
{
	raw_stop(&e->r);
	disconnect(&e->p);
}

/*
 * The message: something in front, the three numbers in an order of their own,
 * something behind, and the checksum of all of that.
 */
#pragma pack(push, 1)
struct message {
	char front[5];
	__u64 length;
	__u64 cookie;
	char middle[3];
	__u64 offset;
	__u32 checksum;
	char behind[2];
};
#pragma pack(pop)

static const struct message words = { .front = "read", .middle = "at", .behind = "\n" };

static struct rmem_ioc_lane lane_of(const struct env *e)
{
	return (struct rmem_ioc_lane){
		.size = sizeof(struct rmem_ioc_lane),
		.region_id = e->r.id,
		.fd = e->p.out,
		.lane = NUMBER,
		.message = (unsigned long)&words,
		.message_bytes = sizeof(words),
		.cookie_at = offsetof(struct message, cookie),
		.offset_at = offsetof(struct message, offset),
		.length_at = offsetof(struct message, length),
		.checksum_at = offsetof(struct message, checksum),
	};
}

static void lend(struct env *e)
{
	struct rmem_ioc_lane l = lane_of(e);

	ASSERT_RET(chan_lane(&e->r.c, &l), 0);
}

/* A message has come, and is what it ought to be. */
static void heard(struct env *e, struct message *m)
{
	struct pollfd in = { .fd = e->p.in, .events = POLLIN };

	ASSERT_EQ(poll(&in, 1, 20000), 1);
	ASSERT_EQ(SYS(recv(e->p.in, m, sizeof(*m), MSG_WAITALL)), sizeof(*m));
	EXPECT_EQ(memcmp(m->front, words.front, sizeof(m->front)), 0);
	EXPECT_EQ(memcmp(m->middle, words.middle, sizeof(m->middle)), 0);
	EXPECT_EQ(memcmp(m->behind, words.behind, sizeof(m->behind)), 0);
	EXPECT_EQ(m->checksum, crc32c_of(m, offsetof(struct message, checksum)));
}

static bool silent(struct env *e)
{
	char byte;

	return recv(e->p.in, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

struct reader {
	struct env *e;
	__u64 at;
	bool by_read;
	int ret;
	unsigned char seen;
	pthread_t thread;
};

static void *reader_thread(void *arg)
{
	struct reader *d = arg;

	if (d->by_read)
		d->ret = pread(d->e->r.fd, &d->seen, 1, d->at) == 1 ? 0 : -errno;
	else
		d->ret = try_read(d->e->r.map + d->at, &d->seen, NULL);
	return NULL;
}

static void ask(struct env *e, struct reader *d, __u64 at, bool by_read)
{
	*d = (struct reader){ .e = e, .at = at, .by_read = by_read };
	ASSERT_EQ(pthread_create(&d->thread, NULL, reader_thread, d), 0);
}

static void fill(struct env *e, const struct rmem_request *q)
{
	static unsigned char bytes[CHUNK];

	pattern_fill(bytes, q->offset, q->length);
	EXPECT_RET(chan_fill(&e->r.c, q->cookie, 0, q->length, bytes, 0), 0);
}

static void answered(struct reader *d)
{
	pthread_join(d->thread, NULL);
	EXPECT_RET(d->ret, 0);
	EXPECT_EQ(d->seen, pattern(d->at));
}

/* The reader has asked; the daemon finds it in the ring once he has the answer. */
static void asked(struct env *e, struct reader *d, struct rmem_request *q)
{
	struct message m;

	heard(e, &m);
	ASSERT_EQ(chan_next(&e->r.c, q, 0), 1);
	EXPECT_EQ(q->op, RMEM_OP_FETCH);
	EXPECT_EQ(q->flags, 0);
	EXPECT_EQ(q->lane, NUMBER);
	EXPECT_EQ(q->offset, d->at / CHUNK * CHUNK);
	EXPECT_EQ(q->cookie, m.cookie);
	EXPECT_EQ(q->offset, m.offset);
	EXPECT_EQ(q->length, m.length);
}

/*
 * If he cannot, the daemon is told twice, and woken the second time; whether that
 * was so. The chunk comes in any case.
 */
static bool was_unasked(struct env *e, struct reader *d, long long asked_before)
{
	struct rmem_request q, again;
	bool told = false;

	ASSERT_SOON(chan_next(&e->r.c, &q, 0) == 1);
	EXPECT_EQ(q.lane, NUMBER);
	EXPECT_EQ(q.flags, 0);
	ASSERT_SOON((told = chan_next(&e->r.c, &again, 0)) ||
		    debugfs_number(&e->r, "asked") > asked_before);
	if (told) {
		EXPECT_EQ(again.lane, 0);
		EXPECT_EQ(again.flags, RMEM_REQ_AGAIN);
		EXPECT_EQ(again.cookie, q.cookie);
		EXPECT_EQ(again.offset, d->at / CHUNK * CHUNK);
		EXPECT_SOON(STAT(e->r.id, waiting) == 1);
	}
	fill(e, &q);
	answered(d);
	return told;
}

static void unasked(struct env *e, struct reader *d)
{
	EXPECT(was_unasked(e, d, 0));
}

/* As ever: the daemon alone is told. */
static void told(struct env *e, struct reader *d, struct rmem_request *q)
{
	ASSERT_EQ(chan_next(&e->r.c, q, 20000), 1);
	EXPECT_EQ(q->lane, 0);
	EXPECT(silent(e));
	fill(e, q);
	answered(d);
}

/*
 * Asking
 */

TEST(whoever_misses_asks)
{
	struct rmem_request q, more;
	struct reader d, second;
	struct env e;
	int f, i;

	EXPECT_EQ(crc32c_of("123456789", 9), 0xe3069283);
	for (f = 0; f < FAMILIES; f++) {
		env_start(&e, f);
		lend(&e);
		for (i = 0; i < 4; i++) {
			context("%s, chunk %d", family_names[f], i);
			ask(&e, &d, i * CHUNK + 4711, i & 1);
			asked(&e, &d, &q);
			/* who comes later waits with him */
			ask(&e, &second, i * CHUNK + 9000, false);
			ASSERT_SOON(STAT(e.r.id, waiting) == 2);
			EXPECT_EQ(chan_next(&e.r.c, &more, 0), 0);
			EXPECT(silent(&e));
			fill(&e, &q);
			answered(&d);
			answered(&second);
		}
		context(" ");
		env_stop(&e);
	}
}

/* Who sleeps in poll() sleeps on, though there is something in the ring. */
struct poller {
	struct env *e;
	pid_t tid;
	int ret;	/* -1: it sleeps */
	pthread_t thread;
};

static void *poller_thread(void *arg)
{
	struct poller *p = arg;
	struct pollfd in = { .fd = p->e->r.c.fd, .events = POLLIN };

	__atomic_store_n(&p->tid, gettid(), __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->ret, poll(&in, 1, -1), __ATOMIC_SEQ_CST);
	return NULL;
}

TEST(nobody_is_woken)
{
	struct poller p = { .ret = -1 };
	struct rmem_request q, ahead;
	struct reader d;
	struct env e;

	env_start(&e, TCP4);
	lend(&e);
	p.e = &e;
	ASSERT_EQ(pthread_create(&p.thread, NULL, poller_thread, &p), 0);
	ASSERT_SOON(asleep_in(__atomic_load_n(&p.tid, __ATOMIC_SEQ_CST), SYS_poll));
	ask(&e, &d, 0, false);
	asked(&e, &d, &q);
	EXPECT(STAYS_MS(__atomic_load_n(&p.ret, __ATOMIC_SEQ_CST) == -1, 300));
	/* What the daemon has to ask for wakes him. */
	EXPECT_RET(chan_prefetch(&e.r.c, e.r.id, 0, CHUNK, CHUNK), 1);
	pthread_join(p.thread, NULL);
	EXPECT_EQ(p.ret, 1);
	ASSERT_EQ(chan_next(&e.r.c, &ahead, 0), 1);
	EXPECT_EQ(ahead.flags, RMEM_REQ_PREFETCH);
	fill(&e, &q);
	answered(&d);
	env_stop(&e);
}

TEST(many_at_once)
{
	struct reader d[CHUNKS];
	struct rmem_request q;
	struct message m;
	__u64 cookies[CHUNKS];
	bool seen[CHUNKS] = { false };
	struct env e;
	int i;

	env_start(&e, TCP4);
	lend(&e);
	for (i = 0; i < CHUNKS; i++)
		ask(&e, &d[i], i * CHUNK + i, false);
	for (i = 0; i < CHUNKS; i++) {
		heard(&e, &m);
		ASSERT(m.offset < SIZE && m.length == CHUNK);
		EXPECT(!seen[m.offset / CHUNK]);
		seen[m.offset / CHUNK] = true;
		cookies[m.offset / CHUNK] = m.cookie;
	}
	for (i = 0; i < CHUNKS; i++) {
		ASSERT_EQ(chan_next(&e.r.c, &q, 0), 1);
		EXPECT_EQ(q.cookie, cookies[q.offset / CHUNK]);
		EXPECT_EQ(q.lane, NUMBER);
		fill(&e, &q);
	}
	for (i = 0; i < CHUNKS; i++)
		answered(&d[i]);
	env_stop(&e);
}

/*
 * He misses it in the middle of sending something else: neither message gets into
 * the other one.
 */
struct sending {
	const void *from;
	size_t bytes;
	int fd;
	ssize_t ret;
};

static void *sending_thread(void *arg)
{
	struct sending *s = arg;

	s->ret = send(s->fd, s->from, s->bytes, 0);
	return NULL;
}

TEST(in_the_middle_of_sending)
{
	static unsigned char got[3 * CHUNK];
	struct rmem_request q;
	struct sending s;
	struct message m;
	struct pair other;
	struct env e;
	pthread_t thread;
	size_t have = 0;
	ssize_t n;
	int i;

	env_start(&e, TCP4);
	other = connected(TCP4);
	lend(&e);
	s = (struct sending){ .from = e.r.map + 100, .bytes = 3 * CHUNK, .fd = other.out };
	ASSERT_EQ(pthread_create(&thread, NULL, sending_thread, &s), 0);
	for (i = 0; i < 4; i++) {
		heard(&e, &m);
		EXPECT_EQ(m.offset, (__u64)i * CHUNK);
		ASSERT_EQ(chan_next(&e.r.c, &q, 0), 1);
		fill(&e, &q);
	}
	while (have < sizeof(got)) {
		n = SYS(recv(other.in, got + have, sizeof(got) - have, 0));
		ASSERT(n > 0);
		have += n;
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(s.ret, 3 * CHUNK);
	EXPECT_EQ(pattern_diff(got, 100, sizeof(got)), -1);
	disconnect(&other);
	env_stop(&e);
}

/*
 * Not asking
 */

TEST(what_is_no_first_demand_is_told)
{
	struct rmem_request q, joined;
	struct reader d;
	struct env e;

	env_start(&e, TCP4);
	lend(&e);
	EXPECT_RET(chan_prefetch(&e.r.c, e.r.id, 0, CHUNK, CHUNK), 1);
	ASSERT_EQ(chan_next(&e.r.c, &q, 20000), 1);
	EXPECT_EQ(q.lane, 0);
	ask(&e, &d, CHUNK, false);
	ASSERT_EQ(chan_next(&e.r.c, &joined, 20000), 1);
	EXPECT_EQ(joined.flags, RMEM_REQ_JOINED);
	EXPECT_EQ(joined.lane, 0);
	EXPECT(silent(&e));
	fill(&e, &q);
	answered(&d);
	env_stop(&e);
}

TEST(ends_and_begins_again)
{
	struct rmem_ioc_lane l;
	struct rmem_request q, earlier;
	struct reader d, waiting;
	struct env e;
	int f;

	for (f = 0; f < FAMILIES; f++) {
		context("%s", family_names[f]);
		env_start(&e, f);
		lend(&e);
		l = lane_of(&e);
		l.lane++;
		EXPECT_RET(chan_lane(&e.r.c, &l), -EISCONN);
		ask(&e, &waiting, 0, false);
		asked(&e, &waiting, &earlier);
		EXPECT_RET(chan_end_lane(&e.r.c, e.r.id), 0);
		EXPECT_RET(chan_end_lane(&e.r.c, e.r.id), 0);
		ask(&e, &d, CHUNK, false);
		told(&e, &d, &q);
		/* the socket is whole, and the daemon's */
		ASSERT_EQ(SYS(send(e.p.out, &words, sizeof(words), 0)), sizeof(words));
		ASSERT_EQ(SYS(recv(e.p.in, &l, sizeof(words), MSG_WAITALL)), sizeof(words));
		lend(&e);
		ask(&e, &d, 2 * CHUNK, false);
		asked(&e, &d, &q);
		fill(&e, &q);
		answered(&d);
		/* what was asked before stays asked */
		fill(&e, &earlier);
		answered(&waiting);
		env_stop(&e);
	}
	context(" ");
}

/* Until it takes not a byte more. */
static void stuff(int fd)
{
	static char much[1 << 16];

	while (send(fd, much, sizeof(much), MSG_DONTWAIT) > 0 ||
	       send(fd, much, 1, MSG_DONTWAIT) > 0)
		;
}

/* There is no room in the socket. TCP finds some every now and then. */
TEST(full)
{
	long long before;
	struct reader d;
	struct env e;
	int f, i;

	for (f = 0; f < FAMILIES; f++) {
		context("%s", family_names[f]);
		env_start(&e, f);
		for (i = 0; i < CHUNKS; i++) {
			stuff(e.p.out);
			lend(&e);
			before = debugfs_number(&e.r, "asked");
			ask(&e, &d, i * CHUNK, false);
			if (was_unasked(&e, &d, before))
				break;
			EXPECT_RET(chan_end_lane(&e.r.c, e.r.id), 0);
		}
		EXPECT(i < CHUNKS);
		env_stop(&e);
	}
	context(" ");
}

TEST(peer_is_gone)
{
	struct reader d;
	struct env e;
	int f;

	for (f = 0; f < FAMILIES; f++) {
		context("%s", family_names[f]);
		env_start(&e, f);
		lend(&e);
		shutdown(e.p.out, SHUT_RDWR);
		ask(&e, &d, 0, false);
		unasked(&e, &d);
		env_stop(&e);
	}
	context(" ");
}

/* Whoever sends on a TCP socket holds its lock; here as long as the test wants. */
TEST(in_use)
{
	struct holder h;
	struct reader d;
	struct env e;

	env_start(&e, TCP4);
	lend(&e);
	if (!holder_start(&h, e.p.out))
		SKIP("no userfaultfd: %s", strerrorname_np(errno));
	ask(&e, &d, 0, false);
	unasked(&e, &d);
	holder_stop(&h);
	env_stop(&e);
}

/*
 * The end of it all
 */

TEST(daemon_dies)
{
	struct rmem_request q, again;
	struct reader d;
	struct env e;
	char byte;
	int f;

	for (f = 0; f < FAMILIES; f++) {
		context("%s", family_names[f]);
		env_start(&e, f);
		lend(&e);
		ask(&e, &d, 0, false);
		asked(&e, &d, &q);
		chan_close(&e.r.c);
		close(e.p.out);
		/* the module has let go of the socket */
		EXPECT_EQ(SYS(recv(e.p.in, &byte, 1, 0)), 0);
		ASSERT_RET(chan_open(&e.r.c, 64), 0);
		ASSERT_RET(chan_serve(&e.r.c, e.r.id), 0);
		ASSERT_EQ(chan_next(&e.r.c, &again, 20000), 1);
		EXPECT_EQ(again.flags, RMEM_REQ_AGAIN);
		EXPECT_EQ(again.lane, 0);
		EXPECT(again.cookie != q.cookie);
		fill(&e, &again);
		answered(&d);
		/* without a lane of its own */
		e.p.out = ASSERT_OK(SYS(dup(0)));
		ask(&e, &d, CHUNK, false);
		ASSERT_EQ(chan_next(&e.r.c, &q, 20000), 1);
		EXPECT_EQ(q.lane, 0);
		fill(&e, &q);
		answered(&d);
		env_stop(&e);
	}
	context(" ");
}

TEST(region_is_unmade)
{
	struct rmem_request q;
	struct rmem_ioc_lane l;
	struct reader d;
	struct env e;
	char byte;

	env_start(&e, TCP4);
	lend(&e);
	ask(&e, &d, 0, false);
	asked(&e, &d, &q);
	EXPECT_RET(region_del_force(e.r.id, NULL), 0);
	pthread_join(d.thread, NULL);
	EXPECT_RET(d.ret, -EFAULT);
	l = lane_of(&e);
	EXPECT_RET(chan_lane(&e.r.c, &l), -ENOENT);
	close(e.p.out);
	EXPECT_EQ(SYS(recv(e.p.in, &byte, 1, 0)), 0);
	munmap(e.r.map, SIZE);
	close(e.r.fd);
	close(e.p.in);
	chan_close(&e.r.c);
}

static int read_and_die(void *arg)
{
	struct env *e = arg;

	return peek(e->r.map) & 1;
}

TEST(who_asked_is_killed)
{
	struct rmem_request q;
	struct reader d;
	struct env e;
	pid_t pid;

	env_start(&e, TCP4);
	lend(&e);
	pid = spawn(read_and_die, &e);
	d.at = 0;
	asked(&e, &d, &q);
	kill(pid, SIGKILL);
	EXPECT(WIFSIGNALED(reap(pid, 20000)));
	/* the chunk comes all the same */
	fill(&e, &q);
	ask(&e, &d, 0, false);
	answered(&d);
	env_stop(&e);
}

/*
 * What is refused
 */

static int refused(struct env *e, struct rmem_ioc_lane *l)
{
	int ret = chan_lane(&e->r.c, l);

	*l = lane_of(e);
	return ret;
}

TEST(messages)
{
	static unsigned char longest[RMEM_LANE_MESSAGE_MAX + 1];
	struct rmem_ioc_lane l;
	struct env e;
	int at;

	env_start(&e, UNIX);
	l = lane_of(&e);
	l.lane = 0;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	l.message_bytes = 0;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	l.message = (unsigned long)longest;
	l.message_bytes = RMEM_LANE_MESSAGE_MAX + 1;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	l.message_bytes = ~0u;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	l.message = 8;
	EXPECT_RET(refused(&e, &l), -EFAULT);
	for (at = sizeof(words) - 7; at < 65536; at = at * 2 + 1) {
		context("at %d", at);
		l.cookie_at = at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
		l.offset_at = at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
		l.length_at = at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
		l.checksum_at = at + 4;
		EXPECT_RET(refused(&e, &l), -EINVAL);
	}
	for (at = -7; at < 8; at++) {
		context("one %d behind another", at);
		l.cookie_at = l.offset_at + at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
		l.cookie_at = l.length_at + at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
		l.offset_at = l.length_at + at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
		if (at < -3)
			continue;
		l.checksum_at = l.offset_at + at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
	}
	context(" ");
	/* To end it takes no more than saying so. */
	l.fd = -1;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	l.fd = -2;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	/* As long as can be, with the numbers at its end. */
	l.message = (unsigned long)longest;
	l.message_bytes = RMEM_LANE_MESSAGE_MAX;
	l.cookie_at = RMEM_LANE_MESSAGE_MAX - 8;
	l.offset_at = RMEM_LANE_MESSAGE_MAX - 16;
	l.length_at = RMEM_LANE_MESSAGE_MAX - 24;
	l.checksum_at = 0;
	EXPECT_RET(refused(&e, &l), 0);
	env_stop(&e);
}

TEST(sockets)
{
	struct rmem_ioc_lane l;
	struct rmem_request q;
	struct reader d;
	struct env e;
	int fds[2], fd;

	env_start(&e, TCP4);
	l = lane_of(&e);
	context("no descriptor");
	l.fd = 9999;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	context("no socket");
	l.fd = e.r.fd;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	context("datagrams");
	ASSERT_RET(SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds)), 0);
	l.fd = fds[0];
	EXPECT_RET(refused(&e, &l), -EINVAL);
	context("listening");
	fd = ASSERT_OK(SYS(socket(AF_INET, SOCK_STREAM, 0)));
	ASSERT_RET(SYS(listen(fd, 1)), 0);
	l.fd = fd;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	context("kTLS");
	if (setsockopt(e.p.out, IPPROTO_TCP, TCP_ULP, "tls", 4) == 0) {
		EXPECT_RET(refused(&e, &l), -EINVAL);
		disconnect(&e.p);
		e.p = connected(TCP4);
	}
	context(" ");
	/* None of them has become one. */
	ask(&e, &d, 0, false);
	told(&e, &d, &q);
	l = lane_of(&e);
	l.region_id = ~0u;
	EXPECT_RET(refused(&e, &l), -ENOENT);
	lend(&e);
	ask(&e, &d, CHUNK, false);
	asked(&e, &d, &q);
	fill(&e, &q);
	answered(&d);
	close(fd);
	close(fds[0]);
	close(fds[1]);
	env_stop(&e);
}

/* A daemon lends for the regions that it serves. */
TEST(regions_of_others)
{
	struct rmem_ioc_lane l;
	struct chan other;
	struct env e;

	env_start(&e, UNIX);
	ASSERT_RET(chan_open(&other, 64), 0);
	l = lane_of(&e);
	EXPECT_RET(chan_lane(&other, &l), -ENOTCONN);
	lend(&e);
	EXPECT_RET(chan_end_lane(&other, e.r.id), -ENOTCONN);
	EXPECT_RET(chan_lane(&e.r.c, &l), -EISCONN);
	chan_close(&other);
	env_stop(&e);
}
