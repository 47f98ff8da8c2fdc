// SPDX-License-Identifier: GPL-2.0-only
/*
 * RMEM_IOC_LANE: whoever misses a chunk asks for it on the daemon's socket, in the
 * daemon's words, and takes the answer; and where he cannot, the daemon is told as if
 * there were no lane.
 */
#include <linux/sockios.h>
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

static void env_start_conf(struct env *e, enum family family, const struct region_conf *conf)
{
	raw_start(&e->r, conf);
	e->p = connected(family);
}

static void env_start(struct env *e, enum family family)
{
	struct region_conf conf = { .size = SIZE, .order = -1 };

	env_start_conf(e, family, &conf);
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
	int ready;	/* what poll() said */
	pthread_t thread;
};

static void *poller_thread(void *arg)
{
	struct poller *p = arg;
	struct pollfd in = { .fd = p->e->r.c.fd, .events = POLLIN };

	__atomic_store_n(&p->tid, gettid(), __ATOMIC_SEQ_CST);
	p->ready = poll(&in, 1, -1);
	return NULL;
}

static bool sleeps(struct poller *p)
{
	return asleep_in(__atomic_load_n(&p->tid, __ATOMIC_SEQ_CST), SYS_poll);
}

static void poller_start(struct poller *p, struct env *e)
{
	*p = (struct poller){ .e = e };
	ASSERT_EQ(pthread_create(&p->thread, NULL, poller_thread, p), 0);
	ASSERT_SOON(sleeps(p));
}

static void woken(struct poller *p)
{
	pthread_join(p->thread, NULL);
	EXPECT_EQ(p->ready, 1);
}

/* Until the lane ends: then there is no answer that would make the daemon look. */
TEST(nobody_is_woken)
{
	struct rmem_request q;
	struct reader d, other;
	struct poller p;
	struct env e;

	env_start(&e, TCP4);
	lend(&e);
	poller_start(&p, &e);
	ask(&e, &d, 0, false);
	asked(&e, &d, &q);
	EXPECT(STAYS_MS(sleeps(&p), 500));
	ask(&e, &other, CHUNK, false);
	ASSERT_SOON(STAT(e.r.id, waiting) == 2);
	EXPECT(sleeps(&p));
	EXPECT_RET(chan_end_lane(&e.r.c, e.r.id), 0);
	woken(&p);
	fill(&e, &q);
	answered(&d);
	ASSERT_EQ(chan_next(&e.r.c, &q, 0), 1);
	fill(&e, &q);
	answered(&other);
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

/*
 * Taking
 */

/* An answer, and what is the same in all of them: not @time and not the numbers. */
#pragma pack(push, 1)
struct answer {
	char kind[4];
	__u32 payload;
	char time[3];
	__u64 cookie;
	__u64 length;
	__u32 sum;
	__u64 offset;
	__u32 checksum;
	char end;
};
#pragma pack(pop)

static const struct answer form = { .kind = "have", .end = '\n' };
static const struct answer mask = { .kind = "\xff\xff\xff\xff", .end = '\xff' };

static struct rmem_ioc_lane taking_lane_of(const struct env *e)
{
	struct rmem_ioc_lane l = lane_of(e);

	l.flags = RMEM_LANE_TAKE;
	l.answer = (unsigned long)&form;
	l.answer_mask = (unsigned long)&mask;
	l.answer_bytes = sizeof(form);
	l.answer_cookie_at = offsetof(struct answer, cookie);
	l.answer_offset_at = offsetof(struct answer, offset);
	l.answer_length_at = offsetof(struct answer, length);
	l.answer_payload_at = offsetof(struct answer, payload);
	l.answer_sum_at = offsetof(struct answer, sum);
	l.answer_checksum_at = offsetof(struct answer, checksum);
	return l;
}

/* Whether the tasks take the answers. */
static bool lend_taking(struct env *e)
{
	struct rmem_ioc_lane l = taking_lane_of(e);

	ASSERT_RET(chan_lane(&e->r.c, &l), 0);
	EXPECT_EQ(l.flags & ~RMEM_LANE_TAKE, 0);
	return l.flags;
}

static void seal(struct answer *a)
{
	a->checksum = crc32c_of(a, offsetof(struct answer, checksum));
}

/* What is sent: an answer with the payload behind it, which is as long as it says. */
static unsigned char wire[sizeof(struct answer) + RMEM_CHUNK_MAX];
static unsigned char *const payload = wire + sizeof(struct answer);

static struct answer answer_to(const struct message *m)
{
	struct answer a = form;

	pattern_fill(payload, m->offset, m->length);
	memcpy(a.time, "now", 3);
	a.payload = m->length;
	a.cookie = m->cookie;
	a.length = m->length;
	a.offset = m->offset;
	a.sum = crc32c_of(payload, m->length);
	seal(&a);
	memcpy(wire, &a, sizeof(a));
	return a;
}

static void say(struct env *e, size_t from, size_t to)
{
	while (from < to)
		from += ASSERT_OK(SYS(send(e->p.in, wire + from, to - from, MSG_NOSIGNAL)));
}

static void answer(struct env *e, const struct message *m)
{
	answer_to(m);
	say(e, 0, sizeof(struct answer) + m->length);
}

static int unread(struct env *e)
{
	int n = -1;

	ioctl(e->p.out, SIOCINQ, &n);
	return n;
}

/* All that was said has arrived, and has been taken. */
static bool all_taken(struct env *e)
{
	int under_way = -1;

	ioctl(e->p.in, SIOCOUTQ, &under_way);
	return !under_way && !unread(e);
}

/* Somebody has asked for it who also takes the answer: the daemon may know, no more. */
static void missed(struct env *e, __u64 at, struct message *m)
{
	struct rmem_request q;

	heard(e, m);
	EXPECT_EQ(m->offset, at / CHUNK * CHUNK);
	EXPECT_EQ(m->length, CHUNK);
	ASSERT_EQ(chan_next(&e->r.c, &q, 0), 1);
	EXPECT_EQ(q.op, RMEM_OP_MISS);
	EXPECT_EQ(q.cookie, 0);
	EXPECT_EQ(q.flags, 0);
	EXPECT_EQ(q.lane, 0);
	EXPECT_EQ(q.region_id, e->r.id);
	EXPECT_EQ(q.offset, m->offset);
	EXPECT_EQ(q.length, m->length);
	EXPECT_EQ(q.demand_offset, at / PAGE * PAGE);
	EXPECT(q.tid != 0);
}

/* Where the module has stopped. */
struct end {
	__u32 flags, bytes;
	__u64 taken;
	struct answer a;
};

static void end_taking(struct env *e, struct end *f)
{
	struct rmem_ioc_lane l = {
		.size = sizeof(l), .region_id = e->r.id, .fd = -1,
		.answer = (unsigned long)&f->a, .answer_bytes = sizeof(f->a),
	};

	memset(f, 0, sizeof(*f));
	ASSERT_RET(chan_lane(&e->r.c, &l), 0);
	f->flags = l.flags;
	f->bytes = l.answer_bytes;
	f->taken = l.taken;
}

/* The module has left the lane to the daemon, and told him. */
static void left(struct env *e, struct end *f)
{
	struct rmem_request q;

	do {
		ASSERT_EQ(chan_next(&e->r.c, &q, 20000), 1);
	} while (q.op == RMEM_OP_MISS);
	EXPECT_EQ(q.op, RMEM_OP_LANE);
	EXPECT_EQ(q.lane, NUMBER);
	EXPECT_EQ(q.region_id, e->r.id);
	EXPECT_EQ(q.cookie, 0);
	end_taking(e, f);
}

/* And what was asked for there. */
static void outstanding(struct env *e, const struct message *m, struct rmem_request *q)
{
	ASSERT_EQ(chan_next(&e->r.c, q, 0), 1);
	EXPECT_EQ(q->op, RMEM_OP_FETCH);
	EXPECT_EQ(q->flags, 0);
	EXPECT_EQ(q->lane, NUMBER);
	EXPECT_EQ(q->cookie, m->cookie);
	EXPECT_EQ(q->offset, m->offset);
	EXPECT_EQ(q->length, m->length);
}

static void nothing_more(struct env *e)
{
	struct rmem_request q;

	EXPECT_EQ(chan_next(&e->r.c, &q, 0), 0);
	EXPECT_SOON(all_taken(e));
	EXPECT(silent(e));
}

static void skip_payload(struct env *e, size_t bytes)
{
	ASSERT_EQ(SYS(recv(e->p.out, payload, bytes, MSG_WAITALL)), bytes);
}

TEST(answers_are_taken)
{
	struct reader d, second;
	struct message m;
	struct env e;
	int f, i;

	for (f = TCP4; f <= TCP6; f++) {
		env_start(&e, f);
		ASSERT(lend_taking(&e));
		for (i = 0; i < 4; i++) {
			context("%s, chunk %d", family_names[f], i);
			ask(&e, &d, i * CHUNK + 4711, i & 1);
			missed(&e, d.at, &m);
			ask(&e, &second, i * CHUNK + 9000, false);
			ASSERT_SOON(STAT(e.r.id, waiting) == 2);
			answer(&e, &m);
			answered(&d);
			answered(&second);
		}
		EXPECT_EQ(debugfs_number(&e.r, "asked"), 4);
		EXPECT_EQ(debugfs_number(&e.r, "answered"), 4);
		EXPECT_EQ(debugfs_number(&e.r, "received"), 4 * CHUNK);
		nothing_more(&e);
		EXPECT_EQ(pattern_diff(e.r.map, 0, 4 * CHUNK), -1);
		env_stop(&e);
	}
	context(" ");
}

/* Chunks of each size, the last of them not even whole pages. */
TEST(answers_of_any_size)
{
	static const __u32 chunks[] = { 4096, 16384, 262144, RMEM_CHUNK_MAX };
	struct region_conf conf = { .order = -1 };
	struct message m;
	struct reader d;
	struct env e;
	unsigned int i, j;
	__u64 at;

	for (i = 0; i < ARRAY_SIZE(chunks); i++) {
		conf.chunk = chunks[i];
		conf.size = 2ull * chunks[i] + 1234;
		env_start_conf(&e, TCP4, &conf);
		ASSERT(lend_taking(&e));
		for (j = 0; j < 3; j++) {
			context("chunk %u of %u", j, chunks[i]);
			at = (__u64)j * chunks[i];
			ask(&e, &d, at + 1000, j & 1);
			heard(&e, &m);
			ASSERT_EQ(m.offset, at);
			ASSERT_EQ(m.length, j < 2 ? chunks[i] : 1234);
			answer(&e, &m);
			answered(&d);
		}
		EXPECT_EQ(pattern_diff(e.r.map, 0, conf.size), -1);
		EXPECT_EQ(bytes_diff(e.r.map + conf.size, 0, PAGE - 1234), -1);
		env_stop(&e);
	}
	context(" ");
}

TEST(unix_sockets_are_the_daemons)
{
	struct rmem_request q;
	struct reader d;
	struct env e;

	env_start(&e, UNIX);
	EXPECT(!lend_taking(&e));
	ask(&e, &d, 0, false);
	asked(&e, &d, &q);
	fill(&e, &q);
	answered(&d);
	env_stop(&e);
}

/* Whoever takes one takes it for whom it is. */
TEST(answers_in_any_order)
{
	struct message m[CHUNKS], swap;
	struct reader d[CHUNKS];
	struct env e;
	int i, j, round;

	srand(harness_seed());
	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	for (round = 0; round < 4; round++) {
		context("round %d", round);
		for (i = 0; i < CHUNKS; i++) {
			ask(&e, &d[i], i * CHUNK + i, i & 1);
			missed(&e, d[i].at, &m[i]);
		}
		for (i = CHUNKS - 1; i > 0; i--) {
			j = rand() % (i + 1);
			swap = m[i];
			m[i] = m[j];
			m[j] = swap;
		}
		for (i = 0; i < CHUNKS; i++)
			answer(&e, &m[i]);
		for (i = 0; i < CHUNKS; i++)
			answered(&d[i]);
		nothing_more(&e);
		EXPECT_EQ(pattern_diff(e.r.map, 0, SIZE), -1);
		EXPECT_RET(region_drop(e.r.fd, 0, 0), 0);
	}
	EXPECT_EQ(debugfs_number(&e.r, "answered"), 4 * CHUNKS);
	context(" ");
	env_stop(&e);
}

/* What is more than that the daemon has to ask for, until something has come. */
TEST(so_many_at_once)
{
	struct rmem_request q[2], more;
	struct reader d[4];
	struct env e;
	int taking, i;

	for (taking = 0; taking <= 1; taking++) {
		struct message m[2];
		struct rmem_ioc_lane l;

		context(taking ? "answers are taken" : "answers are the daemon's");
		env_start(&e, TCP4);
		l = taking ? taking_lane_of(&e) : lane_of(&e);
		l.at_once = 2;
		ASSERT_RET(chan_lane(&e.r.c, &l), 0);
		for (i = 0; i < 2; i++) {
			ask(&e, &d[i], i * CHUNK, false);
			if (taking)
				missed(&e, d[i].at, &m[i]);
			else
				asked(&e, &d[i], &q[i]);
		}
		for (; i < 4; i++) {
			ask(&e, &d[i], i * CHUNK, false);
			told(&e, &d[i], &more);
			EXPECT_EQ(more.op, RMEM_OP_FETCH);
			EXPECT_EQ(more.flags, 0);
		}
		if (taking)
			answer(&e, &m[0]);
		else
			fill(&e, &q[0]);
		answered(&d[0]);
		ask(&e, &d[2], 4 * CHUNK, false);
		if (taking)
			missed(&e, d[2].at, &m[0]);
		else
			asked(&e, &d[2], &q[0]);
		for (i = 0; i < 2; i++) {
			if (taking)
				answer(&e, &m[i]);
			else
				fill(&e, &q[i]);
		}
		answered(&d[1]);
		answered(&d[2]);
		env_stop(&e);
	}
}

/* Each piece is taken before the next is sent. */
TEST(answers_in_pieces)
{
	size_t all = sizeof(struct answer) + CHUNK, at, next;
	struct message m;
	struct reader d;
	struct env e;

	srand(harness_seed());
	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	ask(&e, &d, 0, false);
	missed(&e, 0, &m);
	answer_to(&m);
	for (at = 0; at < all; at = next) {
		EXPECT_EQ(STAT(e.r.id, waiting), 1);
		next = at < sizeof(struct answer) + 2 ? at + 1 : at + 1 + rand() % 5000;
		next = next < all ? next : all;
		say(&e, at, next);
		ASSERT_SOON(all_taken(&e));
	}
	answered(&d);
	nothing_more(&e);
	env_stop(&e);
}

/*
 * Leaving
 */

static void another_kind(struct answer *a)
{
	a->kind[3] ^= 1;
}

static void another_end(struct answer *a)
{
	a->end = 0;
}

static void another_cookie(struct answer *a)
{
	a->cookie++;
}

static void another_generation(struct answer *a)
{
	a->cookie += 1ull << 32;
}

static void another_offset(struct answer *a)
{
	a->offset += PAGE;
}

static void another_length(struct answer *a)
{
	a->length--;
}

static void another_payload(struct answer *a)
{
	a->payload = ~0u;
}

static const struct {
	const char *what;
	void (*change)(struct answer *a);
} no_answers[] = {
	{ "an error", another_kind },
	{ "another end", another_end },
	{ "another cookie", another_cookie },
	{ "another generation", another_generation },
	{ "another offset", another_offset },
	{ "another length", another_length },
	{ "another payload", another_payload },
	{ "a damaged header", NULL },
};

/* It is the daemon's from its first byte on, and he may lend the lane again. */
TEST(what_is_no_answer_is_left)
{
	struct rmem_request q;
	struct message m;
	struct reader d;
	struct answer a;
	struct env e;
	struct end f;
	unsigned int i;

	env_start(&e, TCP4);
	for (i = 0; i < ARRAY_SIZE(no_answers); i++) {
		context("%s", no_answers[i].what);
		ASSERT(lend_taking(&e));
		ask(&e, &d, i * CHUNK, false);
		missed(&e, d.at, &m);
		a = answer_to(&m);
		if (no_answers[i].change) {
			no_answers[i].change(&a);
			seal(&a);
		} else {
			a.checksum ^= 0x100;
		}
		memcpy(wire, &a, sizeof(a));
		say(&e, 0, sizeof(a) + CHUNK);
		left(&e, &f);
		EXPECT_EQ(f.flags, 0);
		EXPECT_EQ(f.bytes, sizeof(a));
		EXPECT_EQ(f.taken, 0);
		EXPECT_EQ(memcmp(&f.a, &a, sizeof(a)), 0);
		outstanding(&e, &m, &q);
		EXPECT_EQ(STAT(e.r.id, waiting), 1);
		EXPECT_EQ(STAT(e.r.id, resident), (unsigned long)i * CHUNK);
		skip_payload(&e, CHUNK);
		fill(&e, &q);
		answered(&d);
		nothing_more(&e);
	}
	context(" ");
	env_stop(&e);
}

TEST(damaged_payloads_are_not_used)
{
	struct rmem_request q;
	struct message m;
	struct reader d;
	struct answer a;
	struct env e;
	struct end f;

	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	ask(&e, &d, 0, false);
	missed(&e, 0, &m);
	a = answer_to(&m);
	payload[4711] ^= 1;
	say(&e, 0, sizeof(a) + CHUNK);
	left(&e, &f);
	EXPECT_EQ(f.flags, RMEM_LANE_DAMAGED);
	EXPECT_EQ(f.bytes, sizeof(a));
	EXPECT_EQ(f.taken, CHUNK);
	outstanding(&e, &m, &q);
	EXPECT_EQ(STAT(e.r.id, resident), 0);
	fill(&e, &q);
	answered(&d);
	EXPECT_EQ(pattern_diff(e.r.map, 0, CHUNK), -1);
	env_stop(&e);
}

/* In front of an answer, in its header, in its payload; in order or not. */
TEST(the_connection_ends)
{
	static const size_t ends[] = { 0, 1, sizeof(struct answer), sizeof(struct answer) + 1000 };
	struct linger now = { .l_onoff = 1 };
	struct rmem_request q;
	struct message m;
	struct reader d;
	struct env e;
	struct end f;
	unsigned int i;

	for (i = 0; i < 2 * ARRAY_SIZE(ends); i++) {
		size_t bytes = ends[i / 2], header = sizeof(struct answer);

		context("%s behind %zu bytes", i & 1 ? "reset" : "end", bytes);
		env_start(&e, TCP4);
		ASSERT(lend_taking(&e));
		ask(&e, &d, 0, false);
		missed(&e, 0, &m);
		answer_to(&m);
		say(&e, 0, bytes);
		ASSERT_SOON(all_taken(&e));
		if (i & 1)
			setsockopt(e.p.in, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close(e.p.in);
		left(&e, &f);
		EXPECT_EQ(f.flags, 0);
		EXPECT_EQ(f.bytes, bytes < header ? bytes : header);
		EXPECT_EQ(f.taken, bytes < header ? 0 : bytes - header);
		EXPECT_EQ(memcmp(&f.a, wire, f.bytes), 0);
		outstanding(&e, &m, &q);
		fill(&e, &q);
		answered(&d);
		e.p.in = ASSERT_OK(SYS(dup(0)));
		env_stop(&e);
	}
	context(" ");
}

/* What a socket has else: urgent data, and kTLS, put on top of it only now. */
TEST(the_unexpected_is_left)
{
	struct rmem_request q;
	struct message m;
	struct reader d;
	struct env e;
	struct end f;
	int i;

	for (i = 0; i < 2; i++) {
		context(i ? "kTLS" : "urgent data");
		env_start(&e, TCP4);
		ASSERT(lend_taking(&e));
		ask(&e, &d, 0, false);
		missed(&e, 0, &m);
		answer_to(&m);
		if (!i)
			ASSERT_EQ(SYS(send(e.p.in, wire, 1, MSG_OOB)), 1);
		else if (setsockopt(e.p.out, IPPROTO_TCP, TCP_ULP, "tls", 4))
			SKIP("no kTLS");
		say(&e, 0, sizeof(struct answer) + CHUNK);
		left(&e, &f);
		outstanding(&e, &m, &q);
		fill(&e, &q);
		answered(&d);
		env_stop(&e);
	}
	context(" ");
}

struct child {
	struct env *e;
	__u64 at;
	pid_t pid;
};

static int child_reads(void *arg)
{
	struct child *c = arg;

	return peek(c->e->r.map + c->at) & 1;
}

static void child_asks(struct env *e, struct child *c, __u64 at)
{
	*c = (struct child){ .e = e, .at = at };
	c->pid = spawn(child_reads, c);
}

static void child_dies(struct child *c)
{
	kill(c->pid, SIGKILL);
	EXPECT(WIFSIGNALED(reap(c->pid, 20000)));
}

/* The others take what was his. */
TEST(a_taker_is_killed)
{
	struct message first, second;
	struct child c;
	struct reader d, late;
	struct env e;

	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	child_asks(&e, &c, 0);
	missed(&e, 0, &first);
	/* half of his answer is there, and taken by him */
	answer_to(&first);
	say(&e, 0, 5000);
	ASSERT_SOON(all_taken(&e));
	ask(&e, &d, 2 * CHUNK, false);
	missed(&e, d.at, &second);
	ASSERT_SOON(STAT(e.r.id, waiting) == 2);
	child_dies(&c);
	say(&e, 5000, sizeof(struct answer) + CHUNK);
	answer(&e, &second);
	answered(&d);
	EXPECT_EQ(STAT(e.r.id, resident), 2 * CHUNK);
	ask(&e, &late, 4000, false);
	answered(&late);
	nothing_more(&e);
	env_stop(&e);
}

/* The daemon takes what is there of a payload of which he has @at bytes; true: all of it. */
static bool received_rest(struct env *e, const struct rmem_request *q, __u64 *at, __u32 sum)
{
	__u64 got = 0;
	int ret = chan_receive(&e->r.c, q->cookie, *at, CHUNK - *at, e->p.out,
			       RMEM_RECEIVE_CHECKSUM, sum, &got);

	*at += got;
	EXPECT(!ret || ret == -EAGAIN);
	return !ret;
}

/* The last one goes: whatever comes is the daemon's. */
TEST(all_takers_are_killed)
{
	static const size_t ends[] = { 0, 10, sizeof(struct answer), sizeof(struct answer) + 1000 };
	size_t header = sizeof(struct answer), all = header + CHUNK;
	struct rmem_request q;
	struct message m, other;
	struct child c[2];
	struct reader d;
	struct answer a;
	struct env e;
	struct end f;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		context("behind %zu bytes", ends[i]);
		env_start(&e, TCP4);
		ASSERT(lend_taking(&e));
		child_asks(&e, &c[0], 0);
		missed(&e, 0, &m);
		child_asks(&e, &c[1], 5 * CHUNK);
		missed(&e, c[1].at, &other);
		a = answer_to(&m);
		say(&e, 0, ends[i]);
		ASSERT_SOON(all_taken(&e));
		child_dies(&c[0]);
		child_dies(&c[1]);
		left(&e, &f);
		EXPECT_EQ(f.flags, 0);
		EXPECT_EQ(f.bytes, ends[i] < header ? ends[i] : header);
		EXPECT_EQ(f.taken, ends[i] < header ? 0 : ends[i] - header);
		outstanding(&e, &m, &q);
		/* he goes on where they stopped */
		say(&e, ends[i], all);
		ASSERT_EQ(SYS(recv(e.p.out, (char *)&f.a + f.bytes, header - f.bytes, MSG_WAITALL)),
			  header - f.bytes);
		EXPECT_EQ(memcmp(&f.a, &a, header), 0);
		ASSERT_SOON(received_rest(&e, &q, &f.taken, a.sum));
		ask(&e, &d, 0, false);
		answered(&d);
		outstanding(&e, &other, &q);
		fill(&e, &q);
		nothing_more(&e);
		env_stop(&e);
	}
	context(" ");
}

TEST(the_daemon_dies_meanwhile)
{
	struct rmem_request again;
	struct message m;
	struct reader d;
	struct env e;
	char byte;

	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	ask(&e, &d, 0, false);
	missed(&e, 0, &m);
	answer_to(&m);
	say(&e, 0, 5000);
	ASSERT_SOON(all_taken(&e));
	chan_close(&e.r.c);
	close(e.p.out);
	/* the module has let go of the socket, though somebody waits */
	EXPECT_EQ(SYS(recv(e.p.in, &byte, 1, 0)), 0);
	ASSERT_RET(chan_open(&e.r.c, 64), 0);
	ASSERT_RET(chan_serve(&e.r.c, e.r.id), 0);
	ASSERT_EQ(chan_next(&e.r.c, &again, 20000), 1);
	EXPECT_EQ(again.op, RMEM_OP_FETCH);
	EXPECT_EQ(again.flags, RMEM_REQ_AGAIN);
	EXPECT_EQ(again.lane, 0);
	EXPECT(again.cookie != m.cookie);
	fill(&e, &again);
	answered(&d);
	e.p.out = ASSERT_OK(SYS(dup(0)));
	env_stop(&e);
}

TEST(the_region_goes_meanwhile)
{
	struct message m;
	struct reader d;
	struct env e;
	char byte;

	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	ask(&e, &d, 0, false);
	missed(&e, 0, &m);
	answer_to(&m);
	say(&e, 0, 5000);
	ASSERT_SOON(all_taken(&e));
	EXPECT_RET(region_del_force(e.r.id, NULL), 0);
	pthread_join(d.thread, NULL);
	EXPECT_RET(d.ret, -EFAULT);
	close(e.p.out);
	EXPECT_EQ(SYS(recv(e.p.in, &byte, 1, 0)), 0);
	munmap(e.r.map, SIZE);
	close(e.r.fd);
	close(e.p.in);
	chan_close(&e.r.c);
}

/* Its time is over in the middle of its answer: the rest is for nobody. */
TEST(a_fetch_ends_meanwhile)
{
	struct message m;
	struct reader d;
	struct env e;
	struct end f;

	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	ask(&e, &d, 0, true);
	missed(&e, 0, &m);
	answer_to(&m);
	say(&e, 0, 5000);
	ASSERT_SOON(all_taken(&e));
	EXPECT_RET(region_abort(e.r.id), 0);
	pthread_join(d.thread, NULL);
	EXPECT_RET(d.ret, -EIO);
	left(&e, &f);
	EXPECT_EQ(f.bytes, sizeof(struct answer));
	EXPECT_EQ(f.taken, 5000 - sizeof(struct answer));
	EXPECT_EQ(f.a.cookie, m.cookie);
	nothing_more(&e);
	EXPECT_EQ(STAT(e.r.id, resident), 0);
	env_stop(&e);
}

/* The daemon has something to send himself, in the middle of an answer and before it. */
TEST(taking_ends_and_begins_again)
{
	struct rmem_request q, more;
	struct message m, other;
	struct reader d, second;
	struct child c;
	struct env e;
	struct end f;

	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	ask(&e, &d, 0, false);
	missed(&e, 0, &m);
	end_taking(&e, &f);
	EXPECT_EQ(f.bytes, 0);
	outstanding(&e, &m, &q);
	/* he only asks, for a while; then it is all the tasks' again */
	lend(&e);
	ask(&e, &second, CHUNK, false);
	asked(&e, &second, &q);
	EXPECT_RET(chan_end_lane(&e.r.c, e.r.id), 0);
	EXPECT_EQ(chan_next(&e.r.c, &q, 0), 0);
	other = (struct message){ .cookie = q.cookie, .offset = CHUNK, .length = CHUNK };
	ASSERT(lend_taking(&e));
	answer(&e, &other);
	answered(&second);
	/* what had come before counts as well */
	end_taking(&e, &f);
	outstanding(&e, &m, &q);
	answer(&e, &m);
	/* as much of it as the window has room for, which is up to the kernel */
	ASSERT_SOON(unread(&e) > (int)sizeof(struct answer));
	ASSERT(lend_taking(&e));
	answered(&d);
	nothing_more(&e);
	EXPECT_EQ(debugfs_number(&e.r, "answered"), 2);

	/* Nobody is there to take it: it is not lent that way. */
	child_asks(&e, &c, 2 * CHUNK);
	missed(&e, c.at, &m);
	end_taking(&e, &f);
	outstanding(&e, &m, &q);
	child_dies(&c);
	EXPECT(!lend_taking(&e));
	ask(&e, &d, 3 * CHUNK, false);
	asked(&e, &d, &more);
	fill(&e, &q);
	fill(&e, &more);
	answered(&d);
	env_stop(&e);
}

/*
 * Two answers for one fetch: what the ring had no room for the daemon asks for
 * himself, and the first answer is no taker's any more.
 */
TEST(no_room_in_the_ring)
{
	struct region_conf conf = { .size = 256 * PAGE, .chunk = PAGE, .order = -1 };
	struct rmem_request q;
	struct message m;
	struct reader d;
	struct env e;
	struct end f;
	int i;

	env_start_conf(&e, TCP4, &conf);
	ASSERT(lend_taking(&e));
	for (i = 0; i < 70; i++) {
		ask(&e, &d, 2 * i * PAGE, i & 1);
		heard(&e, &m);
		answer(&e, &m);
		answered(&d);
	}
	ask(&e, &d, 200 * PAGE, false);
	heard(&e, &m);
	end_taking(&e, &f);
	for (i = 0; i < 64; i++) {
		ASSERT_EQ(chan_next(&e.r.c, &q, 0), 1);
		EXPECT_EQ(q.op, RMEM_OP_MISS);
	}
	ASSERT_EQ(chan_next(&e.r.c, &q, 20000), 1);
	EXPECT_EQ(q.op, RMEM_OP_FETCH);
	EXPECT_EQ(q.lane, 0);
	EXPECT_EQ(q.cookie, m.cookie);
	ASSERT(lend_taking(&e));
	answer(&e, &m);
	left(&e, &f);
	EXPECT_EQ(f.bytes, sizeof(struct answer));
	EXPECT_EQ(f.taken, 0);
	EXPECT_EQ(chan_next(&e.r.c, &q, 0), 0);
	q = (struct rmem_request){ .cookie = m.cookie, .offset = m.offset, .length = m.length };
	fill(&e, &q);
	answered(&d);
	env_stop(&e);
}

/* The daemon sleeps through misses that are nobody's walk, and not through too many. */
TEST(the_daemon_is_woken_now_and_then)
{
	struct region_conf conf = { .size = 256 * PAGE, .chunk = PAGE, .order = -1 };
	struct rmem_request q;
	struct poller p;
	struct message m;
	struct reader d;
	struct env e;
	int i, walk;

	for (walk = 0; walk < 2; walk++) {
		context(walk ? "who walks" : "who jumps");
		env_start_conf(&e, TCP4, &conf);
		ASSERT(lend_taking(&e));
		poller_start(&p, &e);
		for (i = 1; i <= 32; i++) {
			ask(&e, &d, (walk ? 1 : 3) * i * PAGE, false);
			heard(&e, &m);
			answer(&e, &m);
			answered(&d);
			if (i == (walk ? 2 : 32))
				break;
			EXPECT(sleeps(&p));
		}
		woken(&p);
		for (; i > 0; i--) {
			ASSERT_EQ(chan_next(&e.r.c, &q, 0), 1);
			EXPECT_EQ(q.op, RMEM_OP_MISS);
		}
		env_stop(&e);
	}
	context(" ");
}

/*
 * Overtaking
 */

static void *puncher(void *arg)
{
	struct env *e = arg;

	return (void *)(long)region_punch(e->r.fd, 0, PAGE);
}

TEST(a_punch_overtakes_an_answer)
{
	struct rmem_request q, z;
	struct message m;
	struct reader d;
	pthread_t t;
	struct env e;
	void *ret;

	env_start(&e, TCP4);
	ASSERT(lend_taking(&e));
	ask(&e, &d, PAGE, false);
	missed(&e, d.at, &m);
	answer_to(&m);
	say(&e, 0, 5000);
	ASSERT_EQ(pthread_create(&t, NULL, puncher, &e), 0);
	ASSERT_EQ(chan_next(&e.r.c, &z, 20000), 1);
	ASSERT_EQ(z.op, RMEM_OP_ZERO);
	say(&e, 5000, sizeof(struct answer) + CHUNK);
	/* the daemon's now, and once more when the store has done it */
	ASSERT_EQ(chan_next(&e.r.c, &q, 20000), 1);
	EXPECT_EQ(q.op, RMEM_OP_FETCH);
	EXPECT_EQ(q.flags, RMEM_REQ_AGAIN);
	EXPECT_EQ(q.lane, 0);
	EXPECT_EQ(STAT(e.r.id, resident), 0);
	EXPECT_RET(chan_complete(&e.r.c, &z.cookie, 1, 0), 0);
	pthread_join(t, &ret);
	EXPECT_RET((long)ret, 0);
	fill(&e, &q);
	ASSERT_EQ(chan_next(&e.r.c, &q, 20000), 1);
	EXPECT_EQ(q.flags, RMEM_REQ_AGAIN);
	memset(wire, 0, PAGE);
	pattern_fill(wire + PAGE, PAGE, CHUNK - PAGE);
	EXPECT_RET(chan_fill(&e.r.c, q.cookie, 0, CHUNK, wire, 0), 0);
	answered(&d);
	EXPECT_EQ(bytes_diff(e.r.map, 0, PAGE), -1);
	env_stop(&e);
}

/*
 * Page 0 of a chunk is written and becomes durable, so it may go, while the chunk is
 * fetched for another page: those bytes may be older.
 */
TEST(a_write_overtakes_a_fetch)
{
	struct region_conf conf = { .size = SIZE, .order = 0 };
	struct rmem_request q, w;
	struct message m;
	struct reader d;
	struct env e;
	int taken, same;
	__u64 at;

	for (taken = 0; taken < 2; taken++) {
		for (same = 0; same < 2; same++) {
			context("%s, %s chunk", taken ? "taken" : "filled", same ? "the same" : "another");
			env_start_conf(&e, TCP4, &conf);
			ask(&e, &d, 0, false);
			told(&e, &d, &q);
			ask(&e, &d, CHUNK, false);
			told(&e, &d, &q);
			at = same ? 0 : CHUNK;
			poke(e.r.map + at, 42);
			EXPECT_RET(region_drop(e.r.fd, PAGE, PAGE), 0);
			ASSERT_EQ(STAT(e.r.id, resident), 2 * CHUNK - PAGE);
			if (taken)
				ASSERT(lend_taking(&e));
			ask(&e, &d, PAGE, false);
			if (taken)
				missed(&e, PAGE, &m);
			else
				ASSERT_EQ(chan_next(&e.r.c, &q, 20000), 1);
			ASSERT_RET(chan_push(&e.r.c, e.r.id), 0);
			ASSERT_EQ(chan_next(&e.r.c, &w, 20000), 1);
			ASSERT_EQ(w.op, RMEM_OP_WRITE);
			EXPECT_EQ(w.offset, at);
			EXPECT_RET(chan_complete(&e.r.c, &w.cookie, 1, 0), 0);
			/* it goes */
			EXPECT_RET(region_drop(e.r.fd, at, PAGE), 0);
			ASSERT_EQ(STAT(e.r.id, resident), 2 * CHUNK - 2 * PAGE);
			if (taken)
				answer(&e, &m);
			else
				fill(&e, &q);
			if (same) {
				ASSERT_EQ(chan_next(&e.r.c, &q, 20000), 1);
				EXPECT_EQ(q.op, RMEM_OP_FETCH);
				EXPECT_EQ(q.flags, RMEM_REQ_AGAIN);
				EXPECT_EQ(q.lane, 0);
				EXPECT_EQ(STAT(e.r.id, waiting), 1);
				pattern_fill(wire, 0, CHUNK);
				wire[0] = 42;
				EXPECT_RET(chan_fill(&e.r.c, q.cookie, 0, CHUNK, wire, 0), 0);
			}
			answered(&d);
			EXPECT_EQ(STAT(e.r.id, resident), 2 * CHUNK - (same ? 0 : PAGE));
			EXPECT_EQ(same ? peek(e.r.map) : 42, 42);
			env_stop(&e);
		}
	}
	context(" ");
}

/* How an answer looks is checked as a message is, and as far. */
TEST(forms)
{
	static unsigned char longest[RMEM_LANE_MESSAGE_MAX + 1];
	struct rmem_ioc_lane l;
	struct env e;
	__u16 *const fields[] = {
		&l.answer_cookie_at, &l.answer_offset_at, &l.answer_length_at,
		&l.answer_payload_at, &l.answer_sum_at, &l.answer_checksum_at,
	};
	static const unsigned int bytes[] = { 8, 8, 8, 4, 4, 4 };
	unsigned int i, j, at;

	env_start(&e, TCP4);
	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		context("field %u", i);
		for (at = sizeof(form) - bytes[i] + 1; at < 65536; at = at * 2 + 1) {
			l = taking_lane_of(&e);
			*fields[i] = at;
			EXPECT_RET(refused(&e, &l), -EINVAL);
		}
		for (j = 0; j < ARRAY_SIZE(fields); j++) {
			l = taking_lane_of(&e);
			if (i == j)
				continue;
			*fields[i] = *fields[j] + bytes[j] - 1;
			EXPECT_RET(refused(&e, &l), -EINVAL);
			l = taking_lane_of(&e);
			*fields[i] = *fields[j];
			EXPECT_RET(refused(&e, &l), -EINVAL);
		}
		/* of what is not taken nothing is described */
		l = taking_lane_of(&e);
		at = *fields[i];
		l = lane_of(&e);
		*fields[i] = at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
		l = (struct rmem_ioc_lane){ .size = sizeof(l), .region_id = e.r.id, .fd = -1 };
		*fields[i] = at;
		EXPECT_RET(refused(&e, &l), -EINVAL);
	}
	context(" ");
	for (i = 0; i < 5; i++) {
		static const __u32 lengths[] = { 0, 1, RMEM_LANE_MESSAGE_MAX + 1, 1u << 31, ~0u };

		l = taking_lane_of(&e);
		l.answer_bytes = lengths[i];
		EXPECT_RET(refused(&e, &l), -EINVAL);
	}
	l = taking_lane_of(&e);
	l.answer = 8;
	EXPECT_RET(refused(&e, &l), -EFAULT);
	l = taking_lane_of(&e);
	l.answer_mask = 8;
	EXPECT_RET(refused(&e, &l), -EFAULT);
	l = taking_lane_of(&e);
	l.taken = 1;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	l = taking_lane_of(&e);
	l.__reserved = 1;
	EXPECT_RET(refused(&e, &l), -EOPNOTSUPP);
	l = (struct rmem_ioc_lane){ .size = sizeof(l), .region_id = e.r.id, .fd = -1, .at_once = 1 };
	EXPECT_RET(refused(&e, &l), -EINVAL);
	l = (struct rmem_ioc_lane){ .size = sizeof(l), .region_id = e.r.id, .fd = -1 };
	l.flags = RMEM_LANE_TAKE;
	EXPECT_RET(refused(&e, &l), -EINVAL);
	/* As long as can be, the numbers at its end, and no checksums. */
	l = taking_lane_of(&e);
	l.answer = l.answer_mask = (unsigned long)longest;
	l.answer_bytes = RMEM_LANE_MESSAGE_MAX;
	l.answer_cookie_at = RMEM_LANE_MESSAGE_MAX - 8;
	l.answer_offset_at = RMEM_LANE_MESSAGE_MAX - 16;
	l.answer_length_at = RMEM_LANE_MESSAGE_MAX - 24;
	l.answer_payload_at = RMEM_LANE_MESSAGE_MAX - 28;
	l.answer_sum_at = l.answer_checksum_at = 0;
	EXPECT_RET(refused(&e, &l), 0);
	env_stop(&e);
}
