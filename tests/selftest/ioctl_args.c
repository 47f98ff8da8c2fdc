// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arguments that are wrong, of every ioctl and every netlink command: the
 * errno is the one that linux/rmem.h promises, and nothing happens.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "harness.h"
#include "miniserve.h"

#define REGION_SIZE (1 << 20)
#define CHUNK 65536
#define BAD_FLAG (1u << 31)

static int call(int fd, unsigned long nr, void *arg)
{
	int ret = ioctl(fd, nr, arg);

	return ret < 0 ? -errno : ret;
}

/*
 * The envelope: size, tail, flags, pointer. One table entry per ioctl, with
 * arguments that succeed.
 */

enum file { ON_DEVICE, ON_REGION, ON_FRESH_CONTROL, ON_CONTROL };

struct env {
	struct fix f;
	struct chan c;		/* serves other */
	__u32 other;		/* id of a second region */
};

struct sample {
	const char *name;
	unsigned long nr;
	size_t size;
	enum file on;
	size_t reserved;	/* offset of a reserved field, or 0 */
	void (*set)(void *arg, struct env *e);
};

static unsigned char sample_page[4096];
static __u64 sample_cookie = ~0ull;

static void set_attach(void *arg, struct env *e)
{
	struct rmem_ioc_attach *a = arg;

	memcpy(a->name, e->f.name, sizeof(a->name));
}

static void set_none(void *arg, struct env *e)
{
	(void)arg;
	(void)e;
}

static void set_range(void *arg, struct env *e)
{
	struct rmem_ioc_range *r = arg;

	(void)e;
	r->length = CHUNK;
}

static void set_unsafe(void *arg, struct env *e)
{
	static struct rmem_run runs[4];
	struct rmem_ioc_unsafe *u = arg;

	(void)e;
	u->runs = (unsigned long)runs;
	u->run_count = ARRAY_SIZE(runs);
}

static void set_setup(void *arg, struct env *e)
{
	struct rmem_ioc_setup *s = arg;

	(void)e;
	s->ring_entries = 64;
	s->uapi_major = RMEM_UAPI_MAJOR;
}

static void set_region(void *arg, struct env *e)
{
	struct rmem_ioc_region *r = arg;

	r->region_id = e->other;
}

static void set_fill(void *arg, struct env *e)
{
	struct rmem_ioc_fill *f = arg;

	(void)e;
	f->cookie = sample_cookie;
	f->length = sizeof(sample_page);
	f->addr = (unsigned long)sample_page;
}

static void set_receive(void *arg, struct env *e)
{
	struct rmem_ioc_receive *r = arg;

	(void)e;
	r->cookie = sample_cookie;
	r->length = sizeof(sample_page);
	r->fd = -1;
}

static void set_runs(void *arg, struct env *e)
{
	static struct rmem_write_run runs[16];
	struct rmem_ioc_runs *r = arg;

	(void)e;
	r->cookie = sample_cookie;
	r->runs = (unsigned long)runs;
	r->run_count = ARRAY_SIZE(runs);
}

/* Of a region that there is not. */
static void set_send(void *arg, struct env *e)
{
	struct rmem_ioc_send *s = arg;

	(void)e;
	s->region_id = ~0u;
	s->length = sizeof(sample_page);
	s->fd = -1;
}

/* To end a lane that there is not. */
static void set_lane(void *arg, struct env *e)
{
	struct rmem_ioc_lane *l = arg;

	l->region_id = e->other;
	l->fd = -1;
}

static void set_complete(void *arg, struct env *e)
{
	struct rmem_ioc_complete *c = arg;

	(void)e;
	c->error = EAGAIN;
	c->count = 1;
	c->cookies = (unsigned long)&sample_cookie;
}

static struct rmem_run sample_runs[16];

static void set_writeout(void *arg, struct env *e)
{
	struct rmem_ioc_writeout *w = arg;

	(void)e;
	w->cookie = sample_cookie;
	w->addr = (unsigned long)sample_page;
	w->addr_bytes = sizeof(sample_page);
	w->runs = (unsigned long)sample_runs;
	w->run_count = ARRAY_SIZE(sample_runs);
}

static void set_prefetch(void *arg, struct env *e)
{
	struct rmem_ioc_prefetch *p = arg;

	p->region_id = e->other;
	p->length = CHUNK;
}

static void set_state(void *arg, struct env *e)
{
	struct rmem_ioc_state *s = arg;

	s->region_id = e->other;
	s->state = RMEM_STATE_ACTIVE;
}

/*
 * FILL, RECEIVE, WRITEOUT and RUNS name a cookie that is none, SEND a region: with a
 * right envelope they end in ENOENT, which is further than any error of the envelope.
 */
static const struct sample samples[] = {
	{ "ATTACH", RMEM_IOC_ATTACH, 80, ON_DEVICE, 0, set_attach },
	{ "INFO", RMEM_IOC_INFO, 272, ON_REGION, 0, set_none },
	{ "PUNCH", RMEM_IOC_PUNCH, 24, ON_REGION, 0, set_range },
	{ "DROP", RMEM_IOC_DROP, 24, ON_REGION, 0, set_range },
	{ "UNSAFE", RMEM_IOC_UNSAFE, 32, ON_REGION, 28, set_unsafe },
	{ "OVERWRITE", RMEM_IOC_OVERWRITE, 24, ON_REGION, 0, set_range },
	{ "SETUP", RMEM_IOC_SETUP, 32, ON_FRESH_CONTROL, 0, set_setup },
	{ "SERVE", RMEM_IOC_SERVE, 16, ON_CONTROL, 12, set_region },
	{ "FILL", RMEM_IOC_FILL, 40, ON_CONTROL, 0, set_fill },
	{ "COMPLETE", RMEM_IOC_COMPLETE, 32, ON_CONTROL, 28, set_complete },
	{ "WRITEOUT", RMEM_IOC_WRITEOUT, 56, ON_CONTROL, 44, set_writeout },
	{ "PREFETCH", RMEM_IOC_PREFETCH, 32, ON_CONTROL, 0, set_prefetch },
	{ "PUSH", RMEM_IOC_PUSH, 16, ON_CONTROL, 12, set_region },
	{ "STATE", RMEM_IOC_STATE, 144, ON_CONTROL, 0, set_state },
	{ "RECEIVE", RMEM_IOC_RECEIVE, 56, ON_CONTROL, 52, set_receive },
	{ "SEND", RMEM_IOC_SEND, 48, ON_CONTROL, 44, set_send },
	{ "LANE", RMEM_IOC_LANE, 88, ON_CONTROL, 84, set_lane },
	{ "RUNS", RMEM_IOC_RUNS, 32, ON_CONTROL, 28, set_runs },
};

static int good_result(const struct sample *s)
{
	switch (s->nr) {
	case RMEM_IOC_SERVE:
		return -EISCONN;	/* env_start() has done it */
	case RMEM_IOC_FILL:
	case RMEM_IOC_RECEIVE:
	case RMEM_IOC_WRITEOUT:
	case RMEM_IOC_RUNS:
	case RMEM_IOC_SEND:
		return -ENOENT;
	default:
		return 0;
	}
}

static void env_start(struct env *e)
{
	struct region_conf conf = { .size = REGION_SIZE, .order = -1 };

	ASSERT_RET(fix_start(&e->f, &conf), 0);
	ASSERT_RET(region_new(&conf, &e->other), 0);
	ASSERT_RET(chan_open(&e->c, 64), 0);
	ASSERT_RET(chan_serve(&e->c, e->other), 0);
}

static void env_stop(struct env *e)
{
	chan_close(&e->c);
	EXPECT_RET(region_del(e->other), 0);
	EXPECT_RET(fix_stop(&e->f), 0);
}

static int env_file(struct env *e, enum file on)
{
	switch (on) {
	case ON_DEVICE:
		return ASSERT_OK(SYS(open(DEVICE_PATH, O_RDWR | O_CLOEXEC)));
	case ON_REGION:
		return dup(e->f.fd);
	case ON_FRESH_CONTROL:
		return ASSERT_OK(SYS(open(CONTROL_PATH, O_RDWR | O_CLOEXEC)));
	default:
		return dup(e->c.fd);
	}
}

/* On a file of its own: some calls succeed but once. */
static int env_call(struct env *e, const struct sample *s, unsigned long nr,
		    void *arg)
{
	int fd = env_file(e, s->on);
	int ret = call(fd, nr, arg);

	close(fd);
	return ret;
}

/* A good argument of @size bytes, with a page of room behind it. */
static char *env_arg(struct env *e, const struct sample *s)
{
	static char buf[8192] __aligned(8);

	memset(buf, 0, sizeof(buf));
	*(__u32 *)buf = s->size;
	s->set(buf, e);
	return buf;
}

#define for_each_sample(s) \
	for (s = samples; s < samples + ARRAY_SIZE(samples); s++)

TEST(size_exact)
{
	const struct sample *s;
	struct env e;

	env_start(&e);
	for_each_sample(s) {
		context("%s", s->name);
		EXPECT_RET(env_call(&e, s, s->nr, env_arg(&e, s)), good_result(s));
	}
	context(" ");
	env_stop(&e);
}

TEST(size_short)
{
	const struct sample *s;
	struct env e;
	size_t size;
	char *arg;

	env_start(&e);
	for_each_sample(s) {
		for (size = 0; size < s->size; size += 4) {
			context("%s size %zu", s->name, size);
			arg = env_arg(&e, s);
			*(__u32 *)arg = size;
			EXPECT_RET(env_call(&e, s, s->nr, arg), -EINVAL);
		}
	}
	context(" ");
	env_stop(&e);
}

TEST(size_larger_zero_tail)
{
	static const size_t more[] = { 4, 8, 64, 1000 };
	const struct sample *s;
	struct env e;
	char *arg;
	size_t i;

	env_start(&e);
	for_each_sample(s) {
		for (i = 0; i < ARRAY_SIZE(more); i++) {
			context("%s + %zu", s->name, more[i]);
			arg = env_arg(&e, s);
			*(__u32 *)arg = s->size + more[i];
			EXPECT_RET(env_call(&e, s, s->nr, arg), good_result(s));
		}
	}
	context(" ");
	env_stop(&e);
}

/*
 * The header of a newer kernel has longer structs, and with them other ioctl
 * numbers: the length is a part of the number.
 */
TEST(size_larger_in_the_number)
{
	const struct sample *s;
	unsigned long nr;
	struct env e;
	char *arg;

	env_start(&e);
	for_each_sample(s) {
		context("%s", s->name);
		arg = env_arg(&e, s);
		*(__u32 *)arg = s->size + 8;
		nr = _IOC(_IOC_DIR(s->nr), _IOC_TYPE(s->nr), _IOC_NR(s->nr),
			  s->size + 8);
		EXPECT_RET(env_call(&e, s, nr, arg), good_result(s));
	}
	context(" ");
	env_stop(&e);
}

TEST(size_larger_dirty_tail)
{
	static const size_t more[] = { 4, 8, 64, 1000 };
	const struct sample *s;
	struct env e;
	char *arg;
	size_t i;

	env_start(&e);
	for_each_sample(s) {
		for (i = 0; i < ARRAY_SIZE(more); i++) {
			context("%s + %zu", s->name, more[i]);
			arg = env_arg(&e, s);
			*(__u32 *)arg = s->size + more[i];
			arg[s->size + more[i] - 1] = 1;
			EXPECT_RET(env_call(&e, s, s->nr, arg), -E2BIG);
		}
		/* Too large for anything. */
		context("%s huge", s->name);
		arg = env_arg(&e, s);
		*(__u32 *)arg = ~0u;
		EXPECT(env_call(&e, s, s->nr, arg) < 0);
	}
	context(" ");
	env_stop(&e);
}

TEST(flag_unknown)
{
	const struct sample *s;
	struct env e;
	char *arg;
	int bit;

	env_start(&e);
	for_each_sample(s) {
		for (bit = 0; bit < 32; bit++) {
			if (s->nr == RMEM_IOC_FILL && (bit < 2 || bit == 3))
				continue;
			if (s->nr == RMEM_IOC_PREFETCH && bit == 0)
				continue;
			if (s->nr == RMEM_IOC_RECEIVE && (bit == 0 || bit == 2))
				continue;
			if (s->nr == RMEM_IOC_LANE && bit == 0)
				continue;
			context("%s bit %d", s->name, bit);
			arg = env_arg(&e, s);
			*(__u32 *)(arg + 4) = 1u << bit;
			EXPECT_RET(env_call(&e, s, s->nr, arg), -EOPNOTSUPP);
		}
	}
	context(" ");
	env_stop(&e);
}

TEST(reserved_not_zero)
{
	const struct sample *s;
	struct env e;
	char *arg;

	env_start(&e);
	for_each_sample(s) {
		if (!s->reserved)
			continue;
		context("%s", s->name);
		arg = env_arg(&e, s);
		*(__u32 *)(arg + s->reserved) = 1;
		EXPECT_RET(env_call(&e, s, s->nr, arg), -EOPNOTSUPP);
	}
	context(" ");
	env_stop(&e);
}

TEST(pointer_bad)
{
	char *hole = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct sample *s;
	struct env e;
	char *edge;

	ASSERT(hole != MAP_FAILED);
	munmap(hole + 4096, 4096);
	env_start(&e);
	for_each_sample(s) {
		context("%s", s->name);
		EXPECT_RET(env_call(&e, s, s->nr, NULL), -EFAULT);
		EXPECT_RET(env_call(&e, s, s->nr, (void *)~4095ul), -EFAULT);
		/* The first words are there, the rest is not. */
		edge = hole + 4096 - 8;
		memcpy(edge, env_arg(&e, s), 8);
		EXPECT_RET(env_call(&e, s, s->nr, edge), -EFAULT);
	}
	context(" ");
	env_stop(&e);
}

TEST(pointer_read_only)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct sample *s;
	struct env e;

	ASSERT(page != MAP_FAILED);
	env_start(&e);
	for_each_sample(s) {
		/* Those that answer: _IOC_READ in the number. */
		if (!(_IOC_DIR(s->nr) & _IOC_READ) || good_result(s))
			continue;
		context("%s", s->name);
		mprotect(page, 4096, PROT_READ | PROT_WRITE);
		memcpy(page, env_arg(&e, s), s->size);
		mprotect(page, 4096, PROT_READ);
		EXPECT_RET(env_call(&e, s, s->nr, page), -EFAULT);
	}
	context(" ");
	env_stop(&e);
}

TEST(wrong_kind_of_file)
{
	const struct sample *s;
	int node, file, control;
	struct env e;

	env_start(&e);
	ASSERT(rmemfs_mount());
	node = ASSERT_OK(frontend_open(FE_NODE, e.f.name, O_RDWR));
	file = ASSERT_OK(frontend_open(FE_FILE, e.f.name, O_RDWR));
	control = ASSERT_OK(SYS(open(CONTROL_PATH, O_RDWR | O_CLOEXEC)));
	for_each_sample(s) {
		context("%s", s->name);
		switch (s->on) {
		case ON_DEVICE:		/* ATTACH: nowhere else */
			EXPECT_RET(call(node, s->nr, env_arg(&e, s)), -ENOTTY);
			EXPECT_RET(call(file, s->nr, env_arg(&e, s)), -ENOTTY);
			EXPECT_RET(call(control, s->nr, env_arg(&e, s)), -ENOTTY);
			EXPECT_RET(call(e.c.fd, s->nr, env_arg(&e, s)), -ENOTTY);
			break;
		case ON_REGION:
			EXPECT_RET(call(node, s->nr, env_arg(&e, s)), 0);
			EXPECT_RET(call(file, s->nr, env_arg(&e, s)), 0);
			EXPECT_RET(call(control, s->nr, env_arg(&e, s)), -ENOTTY);
			EXPECT_RET(call(e.c.fd, s->nr, env_arg(&e, s)), -ENOTTY);
			break;
		default:
			EXPECT_RET(call(e.f.fd, s->nr, env_arg(&e, s)), -ENOTTY);
			EXPECT_RET(call(node, s->nr, env_arg(&e, s)), -ENOTTY);
			EXPECT_RET(call(file, s->nr, env_arg(&e, s)), -ENOTTY);
		}
	}
	context(" ");
	close(node);
	close(file);
	close(control);
	env_stop(&e);
}

TEST(ioctl_unknown)
{
	static const int reserved[] = {
		0x06, 0x3f, 0x4a, 0x4b, 0x4c, 0x4d, 0x50, 0x7f, 0xff,
	};
	char buf[256] = { 0 };
	struct env e;
	size_t i;
	int dir;

	env_start(&e);
	for (i = 0; i < ARRAY_SIZE(reserved); i++) {
		for (dir = 0; dir < 4; dir++) {
			context("nr 0x%x dir %d", reserved[i], dir);
			*(__u32 *)buf = 64;
			EXPECT_RET(call(e.f.fd, _IOC(dir, RMEM_IOC_TYPE,
						     reserved[i], 64), buf), -ENOTTY);
			EXPECT_RET(call(e.c.fd, _IOC(dir, RMEM_IOC_TYPE,
						     reserved[i], 64), buf), -ENOTTY);
		}
	}
	/* Right number, other type. */
	context("type");
	EXPECT_RET(call(e.f.fd, _IOWR(0x12, 0x01, struct rmem_ioc_info), buf), -ENOTTY);
	EXPECT_RET(call(e.c.fd, _IOWR(0x12, 0x40, struct rmem_ioc_setup), buf), -ENOTTY);
	/* What libc asks of any file. */
	EXPECT_RET(call(e.f.fd, 0x5401 /* TCGETS */, buf), -ENOTTY);
	EXPECT_RET(call(e.c.fd, 0x5401 /* TCGETS */, buf), -ENOTTY);
	context(" ");
	env_stop(&e);
}

/*
 * States
 */

TEST(state_not_attached)
{
	const struct sample *s;
	struct env e;
	char c;
	int fd;

	env_start(&e);
	for_each_sample(s) {
		if (s->on != ON_REGION)
			continue;
		context("%s", s->name);
		fd = env_file(&e, ON_DEVICE);
		EXPECT_RET(call(fd, s->nr, env_arg(&e, s)), -ENOTCONN);
		close(fd);
	}
	context(" ");
	fd = env_file(&e, ON_DEVICE);
	EXPECT_RET(SYS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0)), -ENOTCONN);
	EXPECT_RET(SYS(pread(fd, &c, 1, 0)), -ENOTCONN);
	EXPECT_RET(SYS(pwrite(fd, &c, 1, 0)), -ENOTCONN);
	EXPECT_RET(SYS(lseek(fd, 0, SEEK_END)), -ENOTCONN);
	EXPECT_RET(SYS(fsync(fd)), -ENOTCONN);
	/* Nothing of this has spoilt it. */
	EXPECT_RET(region_attach(fd, e.f.name), 0);
	EXPECT_RET(SYS(pread(fd, &c, 1, 0)), 1);
	close(fd);
	env_stop(&e);
}

TEST(state_attached_twice)
{
	struct env e;

	env_start(&e);
	EXPECT_RET(region_attach(e.f.fd, e.f.name), -EISCONN);
	env_stop(&e);
}

TEST(attach_name)
{
	static const char *const none[] = {
		"no-such-region", "x",
	};
	static const char *const bad[] = {
		"", "-x", ".x", "_x", "..", "a/b", "../x", "a b", "a\n", "\xc3\xa9",
		/* 65 */
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};
	struct rmem_ioc_attach a = { .size = sizeof(a) };
	struct env e;
	size_t i;
	int fd;

	env_start(&e);
	fd = env_file(&e, ON_DEVICE);
	for (i = 0; i < ARRAY_SIZE(none); i++) {
		context("\"%s\"", none[i]);
		EXPECT_RET(region_attach(fd, none[i]), -ENOENT);
	}
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		context("\"%s\"", bad[i]);
		EXPECT_RET(region_attach(fd, bad[i]), -EINVAL);
	}
	context("no NUL");
	memset(a.name, 'a', sizeof(a.name));
	EXPECT_RET(call(fd, RMEM_IOC_ATTACH, &a), -EINVAL);
	context(" ");
	EXPECT_RET(region_attach(fd, e.f.name), 0);
	close(fd);
	env_stop(&e);
}

TEST(state_not_set_up)
{
	const struct sample *s;
	struct env e;
	int fd;

	env_start(&e);
	fd = env_file(&e, ON_FRESH_CONTROL);
	for_each_sample(s) {
		if (s->on != ON_CONTROL)
			continue;
		context("%s", s->name);
		EXPECT_RET(call(fd, s->nr, env_arg(&e, s)), -ENOTCONN);
	}
	context(" ");
	EXPECT_RET(SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)),
		   -ENOTCONN);
	close(fd);
	env_stop(&e);
}

TEST(setup_values)
{
	static const __u32 bad[] = { 0, 1, 32, 63, 65, 100, 131072, 1u << 31, ~0u };
	static const __u32 good[] = { 64, 128, 4096, 65536 };
	struct rmem_ioc_setup s = { .size = sizeof(s), .ring_entries = 64 };
	__u32 last = 0;
	struct chan c;
	size_t i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		context("%u entries", bad[i]);
		EXPECT_RET(chan_open(&c, bad[i]), -EINVAL);
	}
	for (i = 0; i < ARRAY_SIZE(good); i++) {
		context("%u entries", good[i]);
		ASSERT_RET(chan_open(&c, good[i]), 0);
		EXPECT_EQ(c.entries, good[i]);
		EXPECT_GE(c.bytes, sizeof(struct rmem_ring_header) +
			  good[i] * sizeof(struct rmem_request));
		EXPECT_EQ(c.bytes % 4096, 0);
		EXPECT_NE(c.generation, 0);
		EXPECT_NE(c.generation, last);
		last = c.generation;
		chan_close(&c);
	}
	context(" ");

	fd = ASSERT_OK(SYS(open(CONTROL_PATH, O_RDWR | O_CLOEXEC)));
	EXPECT_RET(call(fd, RMEM_IOC_SETUP, &s), -EOPNOTSUPP);	/* major 0 */
	s.uapi_major = RMEM_UAPI_MAJOR + 1;
	EXPECT_RET(call(fd, RMEM_IOC_SETUP, &s), -EOPNOTSUPP);
	/* A newer minor and unknown features are no reason to refuse. */
	s.uapi_major = RMEM_UAPI_MAJOR;
	s.uapi_minor = 999;
	s.features = ~0ull;
	EXPECT_RET(call(fd, RMEM_IOC_SETUP, &s), 0);
	EXPECT_EQ(s.uapi_minor, RMEM_UAPI_MINOR);
	EXPECT_EQ(s.features, RMEM_FEATURES_KNOWN);
	EXPECT_RET(call(fd, RMEM_IOC_SETUP, &s), -EISCONN);
	close(fd);
}

TEST(control_read_only)
{
	struct rmem_ioc_setup s = {
		.size = sizeof(s),
		.ring_entries = 64,
		.uapi_major = RMEM_UAPI_MAJOR,
	};
	int fd = ASSERT_OK(SYS(open(CONTROL_PATH, O_RDONLY | O_CLOEXEC)));

	/* Nobody without the right to write becomes a daemon. */
	EXPECT(call(fd, RMEM_IOC_SETUP, &s) < 0);
	EXPECT(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	close(fd);
}

TEST(region_ids)
{
	struct rmem_ioc_region r = { .size = sizeof(r) };
	struct rmem_ioc_prefetch p = { .size = sizeof(p), .length = CHUNK };
	struct rmem_ioc_state s = { .size = sizeof(s) };
	static const __u32 none[] = { 0, 0x7fffffff, ~0u };
	struct env e;
	size_t i;

	env_start(&e);
	for (i = 0; i < ARRAY_SIZE(none); i++) {
		context("id %u", none[i]);
		r.region_id = none[i];
		p.region_id = none[i];
		s.region_id = none[i];
		EXPECT_RET(call(e.c.fd, RMEM_IOC_SERVE, &r), -ENOENT);
		EXPECT_RET(call(e.c.fd, RMEM_IOC_PUSH, &r), -ENOENT);
		EXPECT_RET(call(e.c.fd, RMEM_IOC_PREFETCH, &p), -ENOENT);
		EXPECT_RET(call(e.c.fd, RMEM_IOC_STATE, &s), -ENOENT);
	}
	/* Served by the other daemon, alive. */
	context("of another");
	r.region_id = e.f.id;
	p.region_id = e.f.id;
	s.region_id = e.f.id;
	EXPECT_RET(call(e.c.fd, RMEM_IOC_SERVE, &r), -EBUSY);
	EXPECT_RET(call(e.c.fd, RMEM_IOC_PUSH, &r), -ENOTCONN);
	EXPECT_RET(call(e.c.fd, RMEM_IOC_PREFETCH, &p), -ENOTCONN);
	EXPECT_RET(call(e.c.fd, RMEM_IOC_STATE, &s), -ENOTCONN);
	context("twice");
	r.region_id = e.other;
	EXPECT_RET(call(e.c.fd, RMEM_IOC_SERVE, &r), -EISCONN);
	context(" ");
	env_stop(&e);
}

TEST(state_values)
{
	static const __u32 bad[] = { RMEM_STATE_QUIESCED, 4, ~0u };
	struct rmem_ioc_state s = { .size = sizeof(s) };
	struct region_stat st;
	struct env e;
	size_t i;

	env_start(&e);
	s.region_id = e.other;
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		context("state %u", bad[i]);
		s.state = bad[i];
		EXPECT_RET(call(e.c.fd, RMEM_IOC_STATE, &s), -EINVAL);
	}
	context("no NUL");
	s.state = RMEM_STATE_ACTIVE;
	memset(s.reason, 'r', sizeof(s.reason));
	EXPECT_RET(call(e.c.fd, RMEM_IOC_STATE, &s), -EINVAL);
	context("longest reason");
	s.reason[sizeof(s.reason) - 1] = 0;
	EXPECT_RET(call(e.c.fd, RMEM_IOC_STATE, &s), 0);
	EXPECT_RET(region_get(e.other, &st), 0);
	EXPECT_STREQ(st.reason, s.reason);
	context(" ");
	env_stop(&e);
}

TEST(range_values)
{
	static const struct { __u64 offset, length; } ranges[] = {
		{ 0, 0 },				/* all of it */
		{ REGION_SIZE - 1, 1 },
		{ REGION_SIZE - 4096, 1 << 20 },	/* clipped */
		{ 0, ~0ull },
		{ 4096, ~0ull },			/* offset + length wraps */
		{ 4096, ~0ull - 4095 },			/* to 0 */
		{ REGION_SIZE, 0 },
		{ REGION_SIZE, 4096 },
		{ 1ull << 62, 4096 },
		{ ~0ull, 1 },
		{ ~0ull, ~0ull },
	};
	struct env e;
	size_t i;

	env_start(&e);
	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		context("0x%llx + 0x%llx", ranges[i].offset, ranges[i].length);
		EXPECT_RET(region_drop(e.f.fd, ranges[i].offset, ranges[i].length), 0);
		EXPECT_EQ(pattern_diff(e.f.map, 0, 4096), -1);
	}
	context("punch of nothing");
	EXPECT_RET(region_punch(e.f.fd, REGION_SIZE, 0), 0);
	EXPECT_RET(region_punch(e.f.fd, 1ull << 62, 4096), 0);
	EXPECT_EQ(pattern_diff(e.f.map, 0, REGION_SIZE), -1);
	EXPECT_EQ(pattern_diff(e.f.store, 0, REGION_SIZE), -1);
	/* The end wraps: it is clipped, and what lies before stays. */
	context("punch of a wrapping range");
	EXPECT_RET(region_punch(e.f.fd, 4096, ~0ull), 0);
	EXPECT_EQ(pattern_diff(e.f.map, 0, 4096), -1);
	EXPECT_EQ(bytes_diff(e.f.map + 4096, 0, REGION_SIZE - 4096), -1);
	EXPECT_EQ(bytes_diff(e.f.store + 4096, 0, REGION_SIZE - 4096), -1);
	context(" ");
	env_stop(&e);
}

TEST(punch_needs_write)
{
	struct region_conf ro = {
		.size = REGION_SIZE, .order = -1, .flags = RMEM_REGION_READ_ONLY,
	};
	struct env e;
	__u32 id;
	int fd;

	env_start(&e);
	fd = ASSERT_OK(region_open(e.f.name, O_RDONLY));
	EXPECT_RET(region_punch(fd, 0, 4096), -EBADF);
	EXPECT_RET(region_drop(fd, 0, 4096), 0);
	close(fd);

	ro.name = region_fresh_name();
	ASSERT_RET(region_new(&ro, &id), 0);
	fd = ASSERT_OK(region_open(ro.name, O_RDONLY));
	EXPECT(region_punch(fd, 0, 4096) < 0);
	close(fd);
	EXPECT_RET(region_del(id), 0);
	env_stop(&e);
}

/*
 * Cookies, with one fetch and one write outstanding
 */

static unsigned char buf2m[RMEM_CHUNK_MAX] __aligned(4096);

static void *touch(void *p)
{
	peek(p);
	return NULL;
}

struct raw {
	struct chan c;
	__u32 id;
	int fd;
	unsigned char *map;
};

static void raw_start(struct raw *r, __u64 size)
{
	struct region_conf conf = {
		.size = size, .order = -1, .name = region_fresh_name(),
	};

	ASSERT_RET(region_new(&conf, &r->id), 0);
	ASSERT_RET(chan_open(&r->c, 64), 0);
	ASSERT_RET(chan_serve(&r->c, r->id), 0);
	ASSERT_RET(chan_state(&r->c, r->id, RMEM_STATE_ACTIVE, ""), 0);
	r->fd = ASSERT_OK(region_open(conf.name, O_RDWR));
	r->map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	ASSERT(r->map != MAP_FAILED);
}

/* Everything is clean by now. */
static void raw_stop(struct raw *r, __u64 size)
{
	munmap(r->map, size);
	close(r->fd);
	chan_close(&r->c);
	EXPECT_RET(region_del(r->id), 0);
}

TEST(fill_values)
{
	const __u64 size = 3 * CHUNK + 5000;
	struct rmem_request r;
	struct raw x;
	pthread_t t;

	pattern_fill(buf2m, 0, sizeof(buf2m));
	raw_start(&x, size);
	pthread_create(&t, NULL, touch, x.map + 5);
	ASSERT_EQ(chan_next(&x.c, &r, 20000), 1);
	ASSERT_EQ(r.op, RMEM_OP_FETCH);
	EXPECT_EQ(r.region_id, x.id);
	EXPECT_EQ(r.flags, 0);
	EXPECT_EQ(r.offset, 0);
	EXPECT_EQ(r.length, CHUNK);
	EXPECT_EQ(r.demand_offset / 4096, 0);
	EXPECT_NE(r.tid, 0);
	EXPECT_NE(r.cookie, 0);

	EXPECT_RET(chan_fill(&x.c, 0, 0, CHUNK, buf2m, 0), -ENOENT);
	EXPECT_RET(chan_fill(&x.c, r.cookie ^ 1, 0, CHUNK, buf2m, 0), -ENOENT);
	EXPECT_RET(chan_fill(&x.c, r.cookie ^ 1ull << 63, 0, CHUNK, buf2m, 0), -ENOENT);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 4096, 4096, buf2m, 0), -ESPIPE);
	EXPECT_RET(chan_fill(&x.c, r.cookie, ~0ull, 4096, buf2m, 0), -ESPIPE);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, 0, buf2m, 0), -EINVAL);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK + 4096, buf2m, 0), -EINVAL);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, ~0ull, buf2m, 0), -EINVAL);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, -4096ull, buf2m, 0), -EINVAL);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK, NULL, 0), -EFAULT);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK, (void *)~4095ul, 0), -EFAULT);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK, x.map, 0), -EFAULT);
	EXPECT_SOON(STAT(x.id, waiting) == 1);

	/* The cursor stands where the last good call left it. */
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, 8192, buf2m, 0), 0);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 4096, 4096, buf2m, 0), -ESPIPE);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 8192, CHUNK, buf2m, 0), -EINVAL);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 8192, CHUNK - 8192, NULL, 0), -EFAULT);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 8192, 1, buf2m + 8192, 0), 0);
	/* From the start again, in pieces of any length. */
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, 1, buf2m + 77, 0), 0);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 8193, 1, buf2m, 0), -ESPIPE);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, 5001, buf2m, 0), 0);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 5001, 8193, buf2m + 5001, 0), 0);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 13194, 1, buf2m + 13194, 0), 0);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 13195, CHUNK - 13195, buf2m + 13195, 0), 0);
	pthread_join(t, NULL);
	EXPECT_EQ(pattern_diff(x.map, 0, CHUNK), -1);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK, buf2m, 0), -ENOENT);

	/* The last chunk ends with the region. */
	pthread_create(&t, NULL, touch, x.map + 3 * CHUNK);
	ASSERT_EQ(chan_next(&x.c, &r, 20000), 1);
	EXPECT_EQ(r.offset, 3 * CHUNK);
	EXPECT_EQ(r.length, 5000);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, 8192, buf2m, 0), -EINVAL);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, 4999, buf2m + 3 * CHUNK, 0), 0);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 4999, 1, buf2m + 3 * CHUNK + 4999, 0), 0);
	pthread_join(t, NULL);
	EXPECT_EQ(pattern_diff(x.map + 3 * CHUNK, 3 * CHUNK, 5000), -1);
	EXPECT_EQ(bytes_diff(x.map + size, 0, 8192 - 5000), -1);

	/* Zeros need no address. */
	pthread_create(&t, NULL, touch, x.map + CHUNK);
	ASSERT_EQ(chan_next(&x.c, &r, 20000), 1);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK, (void *)~4095ul,
			     RMEM_FILL_ZERO), 0);
	pthread_join(t, NULL);
	EXPECT_EQ(bytes_diff(x.map + CHUNK, 0, CHUNK), -1);
	raw_stop(&x, size);
}

TEST(complete_values)
{
	static __u64 many[4097];
	struct rmem_request r;
	__u64 two[2] = { 0 };
	struct raw x;
	pthread_t t;

	raw_start(&x, 4 * CHUNK);
	pthread_create(&t, NULL, touch, x.map);
	ASSERT_EQ(chan_next(&x.c, &r, 20000), 1);
	two[1] = r.cookie;
	EXPECT_RET(chan_complete(&x.c, two, 0, EIO), -EINVAL);
	EXPECT_RET(chan_complete(&x.c, many, 4097, EIO), -EINVAL);
	EXPECT_RET(chan_complete(&x.c, NULL, 1, EIO), -EFAULT);
	/* What is no end of a fetch leaves it as it is. */
	EXPECT_RET(chan_complete(&x.c, &r.cookie, 1, ENOSPC), -EINVAL);
	EXPECT_RET(chan_complete(&x.c, &r.cookie, 1, 4096), -EINVAL);
	EXPECT_RET(chan_complete(&x.c, &r.cookie, 1, ~0u), -EINVAL);
	EXPECT_RET(chan_complete(&x.c, many, 4096, EIO), 4096);
	/* No error means no data: that is not an end of a fetch. */
	EXPECT_RET(chan_complete(&x.c, &r.cookie, 1, 0), -EINVAL);
	EXPECT_SOON(STAT(x.id, waiting) == 1);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK, buf2m, 0), 0);
	pthread_join(t, NULL);
	/* Over: unknown by now, like the other. */
	EXPECT_RET(chan_complete(&x.c, two, 2, EIO), 2);
	raw_stop(&x, 4 * CHUNK);
}

static void *sync_fd(void *arg)
{
	return (void *)(long)SYS(fsync(*(int *)arg));
}

TEST(writeout_values)
{
	struct rmem_run runs[8];
	struct rmem_request r;
	__u64 bytes = 0;
	struct raw x;
	pthread_t t;
	void *ret;
	int i;

	raw_start(&x, 4 * CHUNK);
	pthread_create(&t, NULL, touch, x.map);
	ASSERT_EQ(chan_next(&x.c, &r, 20000), 1);
	/* A fetch is nothing to be written out. */
	EXPECT(chan_writeout(&x.c, r.cookie, buf2m, CHUNK, runs, 8, &bytes) < 0);
	EXPECT_RET(chan_fill(&x.c, r.cookie, 0, CHUNK, buf2m, RMEM_FILL_ZERO), 0);
	pthread_join(t, NULL);

	/* Pages 0, 2, 3: two runs. */
	memset(x.map, 'a', 4096);
	memset(x.map + 8192, 'b', 8192);
	pthread_create(&t, NULL, sync_fd, &x.fd);
	ASSERT_EQ(chan_next(&x.c, &r, 20000), 1);
	ASSERT_EQ(r.op, RMEM_OP_WRITE);
	EXPECT_EQ(r.region_id, x.id);
	EXPECT_EQ(r.flags, RMEM_REQ_SYNC | RMEM_REQ_LAST);
	EXPECT_EQ(r.payload, 3 * 4096);
	EXPECT_EQ(r.offset / CHUNK, 0);
	EXPECT_LE(r.offset + r.length, CHUNK);

	/* A write is nothing to be filled. */
	EXPECT(chan_fill(&x.c, r.cookie, 0, CHUNK, buf2m, 0) < 0);
	EXPECT_RET(chan_writeout(&x.c, r.cookie ^ 1, buf2m, CHUNK, runs, 8, NULL), -ENOENT);
	EXPECT_RET(chan_writeout(&x.c, r.cookie, buf2m, 3 * 4096 - 1, runs, 8, NULL), -ENOBUFS);
	EXPECT_RET(chan_writeout(&x.c, r.cookie, buf2m, 0, runs, 8, NULL), -ENOBUFS);
	EXPECT_RET(chan_writeout(&x.c, r.cookie, buf2m, CHUNK, runs, 1, NULL), -ENOBUFS);
	EXPECT_RET(chan_writeout(&x.c, r.cookie, buf2m, CHUNK, runs, 0, NULL), -ENOBUFS);
	EXPECT_RET(chan_writeout(&x.c, r.cookie, NULL, CHUNK, runs, 8, NULL), -EFAULT);
	EXPECT_RET(chan_writeout(&x.c, r.cookie, buf2m, CHUNK, NULL, 8, NULL), -EFAULT);
	for (i = 0; i < 2; i++) {
		memset(buf2m, 0, CHUNK);
		ASSERT_RET(chan_writeout(&x.c, r.cookie, buf2m, CHUNK, runs, 8, &bytes), 2);
		EXPECT_EQ(bytes, 3 * 4096);
		EXPECT_EQ(runs[0].offset, 0);
		EXPECT_EQ(runs[0].length, 4096);
		EXPECT_EQ(runs[1].offset, 8192);
		EXPECT_EQ(runs[1].length, 8192);
		EXPECT_EQ(bytes_diff(buf2m, 'a', 4096), -1);
		EXPECT_EQ(bytes_diff(buf2m + 4096, 'b', 8192), -1);
	}
	EXPECT_RET(chan_complete(&x.c, &r.cookie, 1, 0), 0);
	pthread_join(t, &ret);
	EXPECT_RET((long)ret, 0);
	EXPECT_RET(chan_writeout(&x.c, r.cookie, buf2m, CHUNK, runs, 8, NULL), -ENOENT);
	raw_stop(&x, 4 * CHUNK);
}

TEST(prefetch_values)
{
	struct rmem_request r;
	struct raw x;
	int n;

	raw_start(&x, 16 * CHUNK);
	EXPECT_RET(chan_prefetch(&x.c, x.id, 0, 0, 2 * CHUNK), 2);
	EXPECT_RET(chan_prefetch(&x.c, x.id, 0, 0, 3 * CHUNK), 1);	/* two are under way */
	EXPECT_RET(chan_prefetch(&x.c, x.id, 0, 7 * CHUNK + 1, 1), 1); /* rounded down */
	EXPECT_RET(chan_prefetch(&x.c, x.id, 0, 15 * CHUNK, ~0ull), 1); /* clipped */
	/* Wholly outside: nothing to do, or out of range. */
	EXPECT(chan_prefetch(&x.c, x.id, 0, 16 * CHUNK, CHUNK) <= 0);
	EXPECT(chan_prefetch(&x.c, x.id, 0, ~0ull, ~0ull) <= 0);
	for (n = 0; chan_next(&x.c, &r, n < 5 ? 20000 : 0); n++) {
		EXPECT_EQ(r.op, RMEM_OP_FETCH);
		EXPECT_EQ(r.flags, RMEM_REQ_PREFETCH);
		EXPECT_EQ(r.offset % CHUNK, 0);
		EXPECT_RET(chan_complete(&x.c, &r.cookie, 1, ECANCELED), 0);
	}
	EXPECT_EQ(n, 5);
	raw_stop(&x, 16 * CHUNK);
}

/* A range that no ring could ever hold: what there is no room for is not gone through. */
TEST(prefetch_of_the_endless)
{
	const struct region_conf conf = { .size = 1ull << 60, .chunk = 4096, .order = -1 };
	struct chan c;
	__u32 id;

	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, id), 0);
	EXPECT_RET(chan_prefetch(&c, id, 0, 0, ~0ull), 4096);
	EXPECT_RET(chan_prefetch(&c, id, 0, 0, ~0ull), 0);
	EXPECT_RET(chan_state(&c, id, RMEM_STATE_FAILED, "a test"), 0);
	EXPECT_RET(chan_prefetch(&c, id, 0, 0, ~0ull), 0);
	chan_close(&c);
	EXPECT_RET(region_del(id), 0);
}

/*
 * Netlink
 */

/* A region-new in the making: all that is needed, plus what the case adds. */
struct draft {
	int fd;			/* -1: none; else put as control-fd */
	const char *name;	/* NULL: none */
	__u64 size;		/* 0: none, unless size_zero */
	bool size_zero;
	bool no_chunk;
	__u16 type;		/* one more attribute of len bytes, 0: none */
	__u64 value;
	size_t len;
};

static int draft_send(const struct draft *d, __u32 *id)
{
	struct nl_msg m;
	struct nl nl;
	int ret;

	*id = 0;
	ASSERT_RET(nl_open(&nl), 0);
	nl_start(&nl, &m, RMEM_CMD_REGION_NEW, 0);
	if (d->fd >= 0)
		nl_put_u32(&m, RMEM_A_REGION_CONTROL_FD, d->fd);
	if (d->name)
		nl_put_str(&m, RMEM_A_REGION_NAME, d->name);
	if (d->size || d->size_zero)
		nl_put_u64(&m, RMEM_A_REGION_SIZE, d->size);
	if (!d->no_chunk && d->type != RMEM_A_REGION_CHUNK)
		nl_put_u32(&m, RMEM_A_REGION_CHUNK, CHUNK);
	if (d->type)
		nl_put(&m, d->type, &d->value, d->len);
	nl_put_str(&m, RMEM_A_REGION_INSTANCE, TEST_INSTANCE);
	ret = nl_send(&nl, &m, NULL, NULL);
	nl_close(&nl);
	return ret;
}

/* Also looks that a refused region does not exist. */
static int draft_refused(const struct draft *d)
{
	struct region_stat st;
	__u32 id;
	int ret = draft_send(d, &id);

	if (d->name)
		EXPECT(region_get_name(d->name, &st) < 0);
	return ret;
}

static int control_fd(int flags)
{
	return ASSERT_OK(SYS(open(CONTROL_PATH, flags | O_CLOEXEC)));
}

TEST(new_least)
{
	struct draft d = { .fd = control_fd(O_RDWR), .name = "least", .size = 1 };
	struct region_stat st;
	__u32 id;

	ASSERT_RET(draft_send(&d, &id), 0);
	ASSERT_RET(region_get_name("least", &st), 0);
	EXPECT_EQ(st.size, 1);
	EXPECT_EQ(st.chunk, CHUNK);
	EXPECT_EQ(st.state, RMEM_STATE_QUIESCED);
	EXPECT_EQ(st.on_loss, RMEM_ON_LOSS_WAIT);
	EXPECT_EQ(st.mode & 0077, 0);
	EXPECT_EQ(st.flags, 0);
	EXPECT_EQ(st.users, 0);
	EXPECT_EQ(st.daemon_pid, 0);
	EXPECT_EQ(st.has_writer, true);
	EXPECT_RET(region_del(st.id), 0);
}

TEST(new_values)
{
	static const struct {
		const char *what;
		__u16 type;
		__u64 value;
		size_t len;
		int want;
	} cases[] = {
		{ "chunk 0", RMEM_A_REGION_CHUNK, 0, 4, -EINVAL },
		{ "chunk 1", RMEM_A_REGION_CHUNK, 1, 4, -EINVAL },
		{ "chunk 2048", RMEM_A_REGION_CHUNK, 2048, 4, -EINVAL },
		{ "chunk 5000", RMEM_A_REGION_CHUNK, 5000, 4, -EINVAL },
		{ "chunk 12288", RMEM_A_REGION_CHUNK, 12288, 4, -EINVAL },
		{ "chunk 4 MiB", RMEM_A_REGION_CHUNK, 4 << 20, 4, -EINVAL },
		{ "chunk 2 GiB", RMEM_A_REGION_CHUNK, 1u << 31, 4, -EINVAL },
		{ "order 10", RMEM_A_REGION_FOLIO_ORDER, 10, 1, -EINVAL },
		{ "order 255", RMEM_A_REGION_FOLIO_ORDER, 255, 1, -EINVAL },
		{ "mode 01000", RMEM_A_REGION_MODE, 01000, 4, -EINVAL },
		{ "mode 04755", RMEM_A_REGION_MODE, 04755, 4, -EINVAL },
		{ "mode 0100600", RMEM_A_REGION_MODE, 0100600, 4, -EINVAL },
		{ "on-loss 3", RMEM_A_REGION_ON_LOSS, 3, 4, -EINVAL },
		{ "on-loss -1", RMEM_A_REGION_ON_LOSS, ~0u, 4, -EINVAL },
		{ "uid -1", RMEM_A_REGION_UID, ~0u, 4, -EINVAL },
		{ "gid -1", RMEM_A_REGION_GID, ~0u, 4, -EINVAL },
		{ "flag 2", RMEM_A_REGION_FLAGS, 2, 4, -EOPNOTSUPP },
		{ "flag 31", RMEM_A_REGION_FLAGS, BAD_FLAG, 4, -EOPNOTSUPP },
	};
	struct draft d = {
		.fd = control_fd(O_RDWR), .name = "bad-value", .size = REGION_SIZE,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		context("%s", cases[i].what);
		d.type = cases[i].type;
		d.value = cases[i].value;
		d.len = cases[i].len;
		EXPECT_RET(draft_refused(&d), cases[i].want);
	}
	/* Of the wrong length, and what a caller may not choose or does not know. */
	context("chunk of 2 bytes");
	d.type = RMEM_A_REGION_CHUNK;
	d.value = 65536;
	d.len = 2;
	EXPECT(draft_refused(&d) < 0);
	context("state");
	d.type = RMEM_A_REGION_STATE;
	d.value = 0;
	d.len = 4;
	EXPECT(draft_refused(&d) < 0);
	context("attribute 200");
	d.type = 200;
	EXPECT(draft_refused(&d) < 0);
	d.type = 0;

	context("no chunk");
	d.no_chunk = true;
	EXPECT_RET(draft_refused(&d), -EINVAL);
	d.no_chunk = false;
	context("no size");
	d.size = 0;
	EXPECT_RET(draft_refused(&d), -EINVAL);
	context("size 0");
	d.size_zero = true;
	EXPECT_RET(draft_refused(&d), -EINVAL);
	context("size 2^63");
	d.size = 1ull << 63;
	EXPECT_RET(draft_refused(&d), -EINVAL);
	context("size 2^64-1");
	d.size = ~0ull;
	EXPECT_RET(draft_refused(&d), -EINVAL);
}

TEST(new_names)
{
	static const char *const bad[] = {
		"", "-x", ".x", "_x", ".", "..", "a/b", "/", "../x", "a b", "a\n",
		"a\xc3\xa9", "a*", "a:b",
	};
	static const char *const good[] = {
		"a", "0", "A.b_c-d", "a..", "a--",
	};
	struct draft d = { .fd = control_fd(O_RDWR), .size = 4096 };
	char name[RMEM_NAME_MAX + 2];
	struct region_stat st;
	__u32 id;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		context("\"%s\"", bad[i]);
		d.name = bad[i];
		EXPECT_RET(draft_refused(&d), -EINVAL);
	}
	context("none");
	d.name = NULL;
	EXPECT_RET(draft_refused(&d), -EINVAL);
	context("65 letters");
	memset(name, 'n', sizeof(name));
	name[RMEM_NAME_MAX + 1] = 0;
	d.name = name;
	i = draft_refused(&d);
	if ((int)i != -ERANGE)	/* netlink's own word for it */
		EXPECT_RET((int)i, -EINVAL);

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		context("\"%s\"", good[i]);
		d.name = good[i];
		if (!EXPECT_RET(draft_send(&d, &id), 0))
			continue;
		ASSERT_RET(region_get_name(good[i], &st), 0);
		EXPECT_STREQ(st.name, good[i]);
		EXPECT_RET(region_del(st.id), 0);
	}
	context("64 letters");
	name[RMEM_NAME_MAX] = 0;
	d.name = name;
	EXPECT_RET(draft_send(&d, &id), 0);
	ASSERT_RET(region_get_name(name, &st), 0);
	EXPECT_RET(access(frontend_path(FE_NODE, name), R_OK), 0);
	EXPECT_RET(region_del(st.id), 0);
}

TEST(new_duplicate)
{
	struct region_conf conf = { .name = "twin", .size = 4096, .order = -1 };
	__u32 id, id2;

	ASSERT_RET(region_new(&conf, &id), 0);
	EXPECT_RET(region_new(&conf, &id2), -EEXIST);
	EXPECT_EQ(STAT(id, size), 4096);
	EXPECT_RET(region_del(id), 0);
	ASSERT_RET(region_new(&conf, &id2), 0);
	EXPECT_RET(region_del(id2), 0);
}

TEST(new_authority)
{
	struct draft d = { .name = "no-authority", .size = 4096 };
	struct region_stat st;
	struct nl_msg m;
	struct nl nl;
	__u32 id;
	int cmd;

	context("no descriptor");
	d.fd = -1;
	EXPECT_RET(draft_refused(&d), -EINVAL);
	context("not open");
	d.fd = 900;
	EXPECT_RET(draft_refused(&d), -EBADF);
	context("another file");
	d.fd = ASSERT_OK(SYS(open("/dev/null", O_RDWR | O_CLOEXEC)));
	EXPECT_RET(draft_refused(&d), -EPERM);
	context("read-only");
	d.fd = control_fd(O_RDONLY);
	EXPECT_RET(draft_refused(&d), -EPERM);
	context("path only");
	d.fd = control_fd(O_PATH);
	EXPECT_RET(draft_refused(&d), -EBADF);
	context("region device");
	d.fd = ASSERT_OK(SYS(open(DEVICE_PATH, O_RDWR | O_CLOEXEC)));
	EXPECT_RET(draft_refused(&d), -EPERM);
	context("right");
	d.fd = control_fd(O_RDWR);
	EXPECT_RET(draft_send(&d, &id), 0);
	ASSERT_RET(region_get_name("no-authority", &st), 0);

	/* The same for region-del and region-set. */
	ASSERT_RET(nl_open(&nl), 0);
	for (cmd = RMEM_CMD_REGION_SET; cmd <= RMEM_CMD_REGION_DEL; cmd++) {
		context("command %d without", cmd);
		nl_start(&nl, &m, cmd, 0);
		nl_put_u32(&m, RMEM_A_REGION_ID, st.id);
		EXPECT_RET(nl_send(&nl, &m, NULL, NULL), -EINVAL);
		context("command %d /dev/null", cmd);
		nl_start(&nl, &m, cmd, 0);
		nl_put_u32(&m, RMEM_A_REGION_ID, st.id);
		nl_put_u32(&m, RMEM_A_REGION_CONTROL_FD,
			   ASSERT_OK(SYS(open("/dev/null", O_RDWR | O_CLOEXEC))));
		EXPECT_RET(nl_send(&nl, &m, NULL, NULL), -EPERM);
	}
	context("set with");
	nl_start(&nl, &m, RMEM_CMD_REGION_SET, 0);
	nl_put_u32(&m, RMEM_A_REGION_ID, st.id);
	nl_put_u32(&m, RMEM_A_REGION_CONTROL_FD, d.fd);
	nl_put_u32(&m, RMEM_A_REGION_ON_LOSS, 9);
	EXPECT_RET(nl_send(&nl, &m, NULL, NULL), -EINVAL);
	context("new by a command nobody knows");
	nl_start(&nl, &m, RMEM_CMD_REGION_EVENT, 0);
	EXPECT_RET(nl_send(&nl, &m, NULL, NULL), -EOPNOTSUPP);
	nl_start(&nl, &m, 200, 0);
	EXPECT_RET(nl_send(&nl, &m, NULL, NULL), -EOPNOTSUPP);
	nl_close(&nl);
	context(" ");
	EXPECT_RET(region_del(st.id), 0);
}

TEST(ids_unknown)
{
	struct region_stat st;
	struct nl_msg m;
	struct nl nl;

	EXPECT_RET(region_del(0), -ENOENT);
	EXPECT_RET(region_del(0x7fffffff), -ENOENT);
	EXPECT_RET(region_set(0x7fffffff, 1000, 1000, 0), -ENOENT);
	EXPECT_RET(region_get(0x7fffffff, &st), -ENOENT);
	EXPECT_RET(region_get_name("no-such-region", &st), -ENOENT);
	/* Neither id nor name: which one? */
	ASSERT_RET(nl_open(&nl), 0);
	nl_start(&nl, &m, RMEM_CMD_REGION_GET, 0);
	EXPECT_RET(nl_send(&nl, &m, NULL, NULL), -EINVAL);
	nl_close(&nl);
}

TEST(set_changes_what_it_may)
{
	struct region_conf conf = { .size = 4096, .order = -1, .fault_ms = 1111,
				    .sync_ms = 2222 };
	struct region_stat st;
	__u32 id;

	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(region_get(id, &st), 0);
	EXPECT_EQ(st.fault_ms, 1111);
	EXPECT_EQ(st.sync_ms, 2222);
	EXPECT_RET(region_set(id, 3333, 4444, RMEM_ON_LOSS_KILL), 0);
	ASSERT_RET(region_get(id, &st), 0);
	EXPECT_EQ(st.fault_ms, 3333);
	EXPECT_EQ(st.sync_ms, 4444);
	EXPECT_EQ(st.on_loss, RMEM_ON_LOSS_KILL);
	EXPECT_RET(region_del(id), 0);
}

/*
 * Who sees what
 */

static void count_region(const struct region_stat *st, void *arg)
{
	*(int *)arg += !strncmp(st->name, "seen-", 5);
}

static int as_nobody(void *arg)
{
	struct draft d = { .name = "by-nobody", .size = 4096 };
	struct region_stat st;
	__u32 *ids = arg;
	int n = 0;

	ASSERT_RET(SYS(setgid(65534)), 0);
	ASSERT_RET(SYS(setuid(65534)), 0);
	EXPECT_RET(region_dump(count_region, &n), 0);
	EXPECT_EQ(n, 1);
	EXPECT_RET(region_get(ids[0], &st), 0);
	EXPECT(region_get(ids[1], &st) < 0);
	EXPECT_RET(SYS(open(CONTROL_PATH, O_RDWR)), -EACCES);
	/* With a descriptor that it could not have opened for writing. */
	d.fd = open("/dev/null", O_RDWR);
	EXPECT_RET(draft_refused(&d), -EPERM);
	return 0;
}

TEST(get_shows_what_one_may_open)
{
	struct region_conf conf = { .size = 4096, .order = -1 };
	__u32 ids[2];
	int n = 0;

	conf.name = "seen-by-all";
	conf.mode = 0644;
	ASSERT_RET(region_new(&conf, &ids[0]), 0);
	conf.name = "seen-by-root";
	conf.mode = 0600;
	ASSERT_RET(region_new(&conf, &ids[1]), 0);
	EXPECT_RET(region_dump(count_region, &n), 0);
	EXPECT_EQ(n, 2);
	EXPECT_EQ(reap(spawn(as_nobody, ids), 20000), 0);
	EXPECT_RET(region_del(ids[0]), 0);
	EXPECT_RET(region_del(ids[1]), 0);
}

/* Regions are the host's, whatever network one is in. */
static int in_another_network(void *arg)
{
	struct region_conf conf = { .name = "seen-elsewhere", .size = 4096, .order = -1 };
	__u32 id = *(__u32 *)arg, new, event, of = 0, state;
	struct nl nl;
	int n = 0;

	ASSERT_RET(SYS(unshare(CLONE_NEWNET)), 0);
	EXPECT_RET(region_dump(count_region, &n), 0);
	EXPECT_EQ(n, 1);
	ASSERT_RET(nl_open(&nl), 0);
	ASSERT_RET(nl_listen(&nl), 0);
	ASSERT_RET(region_new(&conf, &new), 0);
	ASSERT_EQ(nl_event(&nl, 20000, &event, &of, &state), 1);
	EXPECT_EQ(event, RMEM_EVENT_NEW);
	EXPECT_EQ(of, new);
	EXPECT_RET(region_del(new), 0);
	EXPECT_EQ(STAT(id, size), 4096);
	nl_close(&nl);
	return 0;
}

TEST(netlink_in_another_network)
{
	struct region_conf conf = { .name = "seen-here", .size = 4096, .order = -1 };
	__u32 event, id, of, state;
	struct nl nl;

	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(nl_open(&nl), 0);
	ASSERT_RET(nl_listen(&nl), 0);
	EXPECT_EQ(reap(spawn(in_another_network, &id), 30000), 0);
	/* And its events are heard here. */
	ASSERT_EQ(nl_event(&nl, 20000, &event, &of, &state), 1);
	EXPECT_EQ(event, RMEM_EVENT_NEW);
	EXPECT_NE(of, id);
	nl_close(&nl);
	EXPECT_RET(region_del(id), 0);
}

/* Root of a container has an inherited descriptor, and no say. */
static int from_a_user_namespace(void *arg)
{
	struct draft d = { .fd = control_fd(O_RDWR), .name = "contained", .size = 4096 };
	__u32 id = *(__u32 *)arg;
	struct nl_msg m;
	struct nl nl;
	int cmd;

	if (unshare(CLONE_NEWUSER))
		return HARNESS_SKIP;
	EXPECT_RET(draft_refused(&d), -EPERM);
	ASSERT_RET(nl_open(&nl), 0);
	for (cmd = RMEM_CMD_REGION_SET; cmd <= RMEM_CMD_REGION_DEL; cmd++) {
		context("command %d", cmd);
		nl_start(&nl, &m, cmd, 0);
		nl_put_u32(&m, RMEM_A_REGION_ID, id);
		nl_put_u32(&m, RMEM_A_REGION_CONTROL_FD, d.fd);
		EXPECT_RET(nl_send(&nl, &m, NULL, NULL), -EPERM);
	}
	nl_close(&nl);
	return 0;
}

TEST(netlink_from_a_user_namespace)
{
	struct region_conf conf = { .size = 4096, .order = -1 };
	int status;
	__u32 id;

	ASSERT_RET(region_new(&conf, &id), 0);
	status = reap(spawn(from_a_user_namespace, &id), 20000);
	if (WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_SKIP) {
		region_del(id);
		SKIP("no user namespaces");
	}
	EXPECT_EQ(status, 0);
	EXPECT_RET(region_del(id), 0);
}

static int listen_as_nobody(void *arg)
{
	struct nl nl;

	(void)arg;
	ASSERT_RET(SYS(setgid(65534)), 0);
	ASSERT_RET(SYS(setuid(65534)), 0);
	ASSERT_RET(nl_open(&nl), 0);
	EXPECT_RET(nl_listen(&nl), -EPERM);
	nl_close(&nl);
	return 0;
}

TEST(events_need_privilege)
{
	EXPECT_EQ(reap(spawn(listen_as_nobody, NULL), 20000), 0);
}
