// SPDX-License-Identifier: GPL-2.0-only
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>

/*
 * Raw generic netlink
 */

static struct nlmsghdr *nl_hdr(struct nl_msg *m)
{
	return (struct nlmsghdr *)m->buf;
}

void nl_start(struct nl *nl, struct nl_msg *m, __u8 cmd, __u16 flags)
{
	struct nlmsghdr *h = nl_hdr(m);
	struct genlmsghdr *g = NLMSG_DATA(h);

	memset(m->buf, 0, NLMSG_LENGTH(GENL_HDRLEN));
	m->len = NLMSG_LENGTH(GENL_HDRLEN);
	h->nlmsg_type = nl->family;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	h->nlmsg_seq = ++nl->seq;
	g->cmd = cmd;
	g->version = RMEM_FAMILY_VERSION;
}

void nl_put(struct nl_msg *m, __u16 type, const void *data, size_t len)
{
	struct nlattr *a = (struct nlattr *)((char *)m->buf + m->len);
	size_t total = NLA_HDRLEN + NLA_ALIGN(len);

	if (m->len + total > sizeof(m->buf))
		abort();
	memset(a, 0, total);
	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	if (len)
		memcpy((char *)a + NLA_HDRLEN, data, len);
	m->len += total;
}

void nl_put_u8(struct nl_msg *m, __u16 type, __u8 v)
{
	nl_put(m, type, &v, sizeof(v));
}

void nl_put_u32(struct nl_msg *m, __u16 type, __u32 v)
{
	nl_put(m, type, &v, sizeof(v));
}

void nl_put_u64(struct nl_msg *m, __u16 type, __u64 v)
{
	nl_put(m, type, &v, sizeof(v));
}

void nl_put_str(struct nl_msg *m, __u16 type, const char *s)
{
	nl_put(m, type, s, strlen(s) + 1);
}

const void *nl_attr(const void *attrs, size_t size, __u16 type, size_t *len)
{
	const struct nlattr *a;
	size_t at = 0;

	while (at + NLA_HDRLEN <= size) {
		a = (const struct nlattr *)((const char *)attrs + at);
		if (a->nla_len < NLA_HDRLEN || at + a->nla_len > size)
			break;
		if ((a->nla_type & NLA_TYPE_MASK) == type) {
			if (len)
				*len = a->nla_len - NLA_HDRLEN;
			return (const char *)a + NLA_HDRLEN;
		}
		at += NLA_ALIGN(a->nla_len);
	}
	return NULL;
}

int nl_send(struct nl *nl, struct nl_msg *m, nl_cb cb, void *arg)
{
	static __thread __u64 buf[4096];
	struct nlmsghdr *h = nl_hdr(m);
	struct genlmsghdr *g;
	ssize_t n;
	int err;

	h->nlmsg_len = m->len;
	if (!(h->nlmsg_flags & NLM_F_DUMP))
		h->nlmsg_flags |= NLM_F_ACK;
	if (send(nl->fd, h, m->len, 0) < 0)
		return -errno;
	for (;;) {
		n = recv(nl->fd, buf, sizeof(buf), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		for (h = (struct nlmsghdr *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_seq != nl->seq)
				continue;
			if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
				memcpy(&err, NLMSG_DATA(h), sizeof(err));
				return err;
			}
			g = NLMSG_DATA(h);
			if (cb)
				cb(g->cmd, (char *)g + GENL_HDRLEN,
				   h->nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN), arg);
		}
	}
}

static void nl_family(__u8 cmd, const void *attrs, size_t len, void *arg)
{
	struct nl *nl = arg;
	const char *groups, *name;
	const struct nlattr *g;
	size_t size, at;
	const void *v;

	(void)cmd;
	v = nl_attr(attrs, len, CTRL_ATTR_FAMILY_ID, NULL);
	if (v)
		memcpy(&nl->family, v, sizeof(nl->family));
	groups = nl_attr(attrs, len, CTRL_ATTR_MCAST_GROUPS, &size);
	for (at = 0; groups && at + NLA_HDRLEN <= size; at += NLA_ALIGN(g->nla_len)) {
		g = (const struct nlattr *)(groups + at);
		if (g->nla_len < NLA_HDRLEN)
			break;
		name = nl_attr(g + 1, g->nla_len - NLA_HDRLEN,
			       CTRL_ATTR_MCAST_GRP_NAME, NULL);
		v = nl_attr(g + 1, g->nla_len - NLA_HDRLEN,
			    CTRL_ATTR_MCAST_GRP_ID, NULL);
		if (name && v && !strcmp(name, RMEM_MCGRP_EVENTS))
			memcpy(&nl->events, v, sizeof(nl->events));
	}
}

int nl_open(struct nl *nl)
{
	struct nl_msg m;
	int ret;

	memset(nl, 0, sizeof(*nl));
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (nl->fd < 0)
		return -errno;
	nl->family = GENL_ID_CTRL;
	nl_start(nl, &m, CTRL_CMD_GETFAMILY, 0);
	nl_put_str(&m, CTRL_ATTR_FAMILY_NAME, RMEM_FAMILY_NAME);
	ret = nl_send(nl, &m, nl_family, nl);
	if (!ret && nl->family == GENL_ID_CTRL)
		ret = -ENOENT;
	if (ret)
		close(nl->fd);
	return ret;
}

void nl_close(struct nl *nl)
{
	close(nl->fd);
}

int nl_listen(struct nl *nl)
{
	return setsockopt(nl->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP,
			  &nl->events, sizeof(nl->events)) ? -errno : 0;
}

static __u32 attr_u32(const void *attrs, size_t len, __u16 type)
{
	const void *v = nl_attr(attrs, len, type, NULL);
	__u32 n = 0;

	if (v)
		memcpy(&n, v, sizeof(n));
	return n;
}

static __u64 attr_u64(const void *attrs, size_t len, __u16 type)
{
	const void *v = nl_attr(attrs, len, type, NULL);
	__u64 n = 0;

	if (v)
		memcpy(&n, v, sizeof(n));
	return n;
}

int nl_event(struct nl *nl, int ms, __u32 *event, __u32 *id, __u32 *state)
{
	static __thread __u64 buf[2048];
	struct pollfd p = { .fd = nl->fd, .events = POLLIN };
	struct nlmsghdr *h = (struct nlmsghdr *)buf;
	struct genlmsghdr *g;
	const char *attrs;
	size_t len;
	ssize_t n;

	for (;;) {
		n = poll(&p, 1, ms);
		if (n == 0)
			return 0;
		n = n < 0 ? n : recv(nl->fd, buf, sizeof(buf), 0);
		if (n < 0)
			return -errno;
		g = NLMSG_DATA(h);
		if (!NLMSG_OK(h, n) || h->nlmsg_type != nl->family ||
		    g->cmd != RMEM_CMD_REGION_EVENT)
			continue;
		attrs = (char *)g + GENL_HDRLEN;
		len = h->nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN);
		*event = attr_u32(attrs, len, RMEM_A_REGION_EVENT);
		*id = attr_u32(attrs, len, RMEM_A_REGION_ID);
		*state = attr_u32(attrs, len, RMEM_A_REGION_STATE);
		return 1;
	}
}

/*
 * Regions
 */

const char *region_fresh_name(void)
{
	static char name[RMEM_NAME_SIZE];
	static unsigned int n;

	snprintf(name, sizeof(name), "t%d-%u", getpid(), ++n);
	return name;
}

static void take_id(__u8 cmd, const void *attrs, size_t len, void *arg)
{
	(void)cmd;
	*(__u32 *)arg = attr_u32(attrs, len, RMEM_A_REGION_ID);
}

int region_new(const struct region_conf *c, __u32 *id)
{
	struct nl_msg m;
	struct nl nl;
	int ret, fd;

	fd = open(CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = nl_open(&nl);
	if (ret) {
		close(fd);
		return ret;
	}
	nl_start(&nl, &m, RMEM_CMD_REGION_NEW, 0);
	nl_put_u32(&m, RMEM_A_REGION_CONTROL_FD, fd);
	nl_put_str(&m, RMEM_A_REGION_NAME, c->name ?: region_fresh_name());
	nl_put_u64(&m, RMEM_A_REGION_SIZE, c->size);
	nl_put_u32(&m, RMEM_A_REGION_CHUNK, c->chunk ?: 65536);
	if (c->order >= 0)
		nl_put_u8(&m, RMEM_A_REGION_FOLIO_ORDER, c->order);
	nl_put_u32(&m, RMEM_A_REGION_FLAGS, c->flags);
	nl_put_u32(&m, RMEM_A_REGION_UID, c->uid);
	nl_put_u32(&m, RMEM_A_REGION_GID, c->gid);
	nl_put_u32(&m, RMEM_A_REGION_MODE, c->mode ?: 0600);
	if (c->fault_ms)
		nl_put_u32(&m, RMEM_A_REGION_FAULT_TIMEOUT_MS, c->fault_ms);
	if (c->sync_ms)
		nl_put_u32(&m, RMEM_A_REGION_SYNC_TIMEOUT_MS, c->sync_ms);
	nl_put_u32(&m, RMEM_A_REGION_ON_LOSS, c->on_loss);
	if (c->resident_limit)
		nl_put_u64(&m, RMEM_A_REGION_RESIDENT_LIMIT, c->resident_limit);
	if (c->dirty_limit)
		nl_put_u64(&m, RMEM_A_REGION_DIRTY_LIMIT, c->dirty_limit);
	if (c->push_threshold)
		nl_put_u64(&m, RMEM_A_REGION_PUSH_THRESHOLD, c->push_threshold);
	nl_put_str(&m, RMEM_A_REGION_SOURCE, "test:none");
	nl_put_str(&m, RMEM_A_REGION_INSTANCE, TEST_INSTANCE);
	ret = nl_send(&nl, &m, take_id, id);
	nl_close(&nl);
	close(fd);
	return ret;
}

static void take_lost(__u8 cmd, const void *attrs, size_t len, void *arg)
{
	if (cmd == RMEM_CMD_REGION_DEL)
		*(__u64 *)arg = attr_u64(attrs, len, RMEM_A_REGION_LOST_BYTES);
}

/* A request that needs an authority and an id, and may have a flag. */
static int command(__u8 cmd, __u32 id, __u16 flag, __u64 *lost)
{
	struct nl_msg m;
	struct nl nl;
	int ret, fd;

	fd = open(CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = nl_open(&nl);
	if (!ret) {
		nl_start(&nl, &m, cmd, 0);
		nl_put_u32(&m, RMEM_A_REGION_CONTROL_FD, fd);
		nl_put_u32(&m, RMEM_A_REGION_ID, id);
		if (flag)
			nl_put(&m, flag, NULL, 0);
		ret = nl_send(&nl, &m, lost ? take_lost : NULL, lost);
		nl_close(&nl);
	}
	close(fd);
	return ret;
}

int region_del(__u32 id)
{
	return command(RMEM_CMD_REGION_DEL, id, 0, NULL);
}

int region_del_force(__u32 id, __u64 *lost)
{
	__u64 unused;

	return command(RMEM_CMD_REGION_DEL, id, RMEM_A_REGION_FORCE, lost ?: &unused);
}

int region_abort(__u32 id)
{
	return command(RMEM_CMD_REGION_ABORT, id, 0, NULL);
}

/* The authority and the id; then @more adds what is to be set. */
static int set(__u32 id, void (*more)(struct nl_msg *m, const void *arg), const void *arg)
{
	struct nl_msg m;
	struct nl nl;
	int ret, fd;

	fd = open(CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = nl_open(&nl);
	if (!ret) {
		nl_start(&nl, &m, RMEM_CMD_REGION_SET, 0);
		nl_put_u32(&m, RMEM_A_REGION_CONTROL_FD, fd);
		nl_put_u32(&m, RMEM_A_REGION_ID, id);
		more(&m, arg);
		ret = nl_send(&nl, &m, NULL, NULL);
		nl_close(&nl);
	}
	close(fd);
	return ret;
}

static void put_policy(struct nl_msg *m, const void *arg)
{
	const __u32 *values = arg;

	nl_put_u32(m, RMEM_A_REGION_FAULT_TIMEOUT_MS, values[0]);
	nl_put_u32(m, RMEM_A_REGION_SYNC_TIMEOUT_MS, values[1]);
	nl_put_u32(m, RMEM_A_REGION_ON_LOSS, values[2]);
}

int region_set(__u32 id, __u32 fault_ms, __u32 sync_ms, __u32 on_loss)
{
	return set(id, put_policy, (__u32 []){ fault_ms, sync_ms, on_loss });
}

static void put_limits(struct nl_msg *m, const void *arg)
{
	const __u64 *values = arg;

	nl_put_u64(m, RMEM_A_REGION_RESIDENT_LIMIT, values[0]);
	nl_put_u64(m, RMEM_A_REGION_DIRTY_LIMIT, values[1]);
}

static void put_threshold(struct nl_msg *m, const void *arg)
{
	nl_put_u64(m, RMEM_A_REGION_PUSH_THRESHOLD, *(const __u64 *)arg);
}

int region_set_threshold(__u32 id, __u64 bytes)
{
	return set(id, put_threshold, &bytes);
}

int region_set_limits(__u32 id, __u64 resident, __u64 dirty)
{
	return set(id, put_limits, (__u64 []){ resident, dirty });
}

static void take_text(char *to, size_t size, const void *attrs, size_t len,
		      __u16 type)
{
	size_t n = 0;
	const char *s = nl_attr(attrs, len, type, &n);

	if (s)
		snprintf(to, size, "%.*s", (int)n, s);
}

static void take_stat(struct region_stat *st, const void *a, size_t len)
{
	const __u8 *order;
	const void *writer;
	size_t n;

	memset(st, 0, sizeof(*st));
	st->id = attr_u32(a, len, RMEM_A_REGION_ID);
	st->chunk = attr_u32(a, len, RMEM_A_REGION_CHUNK);
	st->flags = attr_u32(a, len, RMEM_A_REGION_FLAGS);
	st->uid = attr_u32(a, len, RMEM_A_REGION_UID);
	st->gid = attr_u32(a, len, RMEM_A_REGION_GID);
	st->mode = attr_u32(a, len, RMEM_A_REGION_MODE);
	st->state = attr_u32(a, len, RMEM_A_REGION_STATE);
	st->users = attr_u32(a, len, RMEM_A_REGION_USERS);
	st->daemon_pid = attr_u32(a, len, RMEM_A_REGION_DAEMON_PID);
	st->waiting = attr_u32(a, len, RMEM_A_REGION_WAITING);
	st->fault_ms = attr_u32(a, len, RMEM_A_REGION_FAULT_TIMEOUT_MS);
	st->sync_ms = attr_u32(a, len, RMEM_A_REGION_SYNC_TIMEOUT_MS);
	st->on_loss = attr_u32(a, len, RMEM_A_REGION_ON_LOSS);
	order = nl_attr(a, len, RMEM_A_REGION_FOLIO_ORDER, NULL);
	st->order = order ? *order : -1;
	st->size = attr_u64(a, len, RMEM_A_REGION_SIZE);
	st->resident = attr_u64(a, len, RMEM_A_REGION_RESIDENT_BYTES);
	st->dirty = attr_u64(a, len, RMEM_A_REGION_DIRTY_BYTES);
	st->writeback = attr_u64(a, len, RMEM_A_REGION_WRITEBACK_BYTES);
	st->fetched = attr_u64(a, len, RMEM_A_REGION_FETCHED_BYTES);
	st->pushed = attr_u64(a, len, RMEM_A_REGION_PUSHED_BYTES);
	st->f_demand = attr_u64(a, len, RMEM_A_REGION_FAULTS_DEMAND);
	st->f_resident = attr_u64(a, len, RMEM_A_REGION_FAULTS_RESIDENT);
	st->f_wp = attr_u64(a, len, RMEM_A_REGION_FAULTS_WRITE_PROTECT);
	st->errors = attr_u64(a, len, RMEM_A_REGION_ERRORS);
	st->resident_limit = attr_u64(a, len, RMEM_A_REGION_RESIDENT_LIMIT);
	st->dirty_limit = attr_u64(a, len, RMEM_A_REGION_DIRTY_LIMIT);
	st->push_threshold = attr_u64(a, len, RMEM_A_REGION_PUSH_THRESHOLD);
	st->module = attr_u64(a, len, RMEM_A_REGION_MODULE_BYTES);
	take_text(st->name, sizeof(st->name), a, len, RMEM_A_REGION_NAME);
	take_text(st->instance, sizeof(st->instance), a, len,
		  RMEM_A_REGION_INSTANCE);
	take_text(st->reason, sizeof(st->reason), a, len, RMEM_A_REGION_REASON);
	writer = nl_attr(a, len, RMEM_A_REGION_WRITER, &n);
	st->has_writer = writer && n == sizeof(st->writer);
	if (st->has_writer)
		memcpy(st->writer, writer, n);
}

static void take_one(__u8 cmd, const void *attrs, size_t len, void *arg)
{
	(void)cmd;
	take_stat(arg, attrs, len);
}

static int get_one(__u32 id, const char *name, struct region_stat *st)
{
	struct nl_msg m;
	struct nl nl;
	int ret;

	ret = nl_open(&nl);
	if (ret)
		return ret;
	nl_start(&nl, &m, RMEM_CMD_REGION_GET, 0);
	if (name)
		nl_put_str(&m, RMEM_A_REGION_NAME, name);
	else
		nl_put_u32(&m, RMEM_A_REGION_ID, id);
	ret = nl_send(&nl, &m, take_one, st);
	nl_close(&nl);
	return ret;
}

int region_get(__u32 id, struct region_stat *st)
{
	return get_one(id, NULL, st);
}

int region_get_name(const char *name, struct region_stat *st)
{
	return get_one(0, name, st);
}

struct dump {
	void (*cb)(const struct region_stat *st, void *arg);
	void *arg;
};

static void take_dump(__u8 cmd, const void *attrs, size_t len, void *arg)
{
	struct dump *d = arg;
	struct region_stat st;

	(void)cmd;
	take_stat(&st, attrs, len);
	d->cb(&st, d->arg);
}

int region_dump(void (*cb)(const struct region_stat *st, void *arg), void *arg)
{
	struct dump d = { cb, arg };
	struct nl_msg m;
	struct nl nl;
	int ret;

	ret = nl_open(&nl);
	if (ret)
		return ret;
	nl_start(&nl, &m, RMEM_CMD_REGION_GET, NLM_F_DUMP);
	ret = nl_send(&nl, &m, take_dump, &d);
	nl_close(&nl);
	return ret;
}

long long region_stat_u64(__u32 id, size_t offset)
{
	struct region_stat st;
	int ret = region_get(id, &st);
	__u64 v;

	memcpy(&v, (char *)&st + offset, sizeof(v));
	return ret ?: (long long)v;
}

long long region_stat_u32(__u32 id, size_t offset)
{
	struct region_stat st;
	int ret = region_get(id, &st);
	__u32 v;

	memcpy(&v, (char *)&st + offset, sizeof(v));
	return ret ?: (long long)v;
}

int region_attach(int fd, const char *name)
{
	struct rmem_ioc_attach a = { .size = sizeof(a) };

	memcpy(a.name, name, strnlen(name, sizeof(a.name)));
	return ioctl(fd, RMEM_IOC_ATTACH, &a) ? -errno : 0;
}

int region_open(const char *name, int flags)
{
	int fd = open(DEVICE_PATH, flags | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = region_attach(fd, name);
	if (ret) {
		close(fd);
		return ret;
	}
	return fd;
}

int region_info(int fd, struct rmem_ioc_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return ioctl(fd, RMEM_IOC_INFO, info) ? -errno : 0;
}

static int range_ioctl(int fd, unsigned long nr, __u64 offset, __u64 length)
{
	struct rmem_ioc_range r = {
		.size = sizeof(r), .offset = offset, .length = length,
	};

	return ioctl(fd, nr, &r) ? -errno : 0;
}

int region_punch(int fd, __u64 offset, __u64 length)
{
	return range_ioctl(fd, RMEM_IOC_PUNCH, offset, length);
}

int region_drop(int fd, __u64 offset, __u64 length)
{
	return range_ioctl(fd, RMEM_IOC_DROP, offset, length);
}

int region_overwrite(int fd, __u64 offset, __u64 length)
{
	return range_ioctl(fd, RMEM_IOC_OVERWRITE, offset, length);
}

int region_unsafe(int fd, __u64 *offset, struct rmem_run *runs, __u32 room)
{
	struct rmem_ioc_unsafe u = {
		.size = sizeof(u), .offset = *offset, .runs = (uintptr_t)runs,
		.run_count = room,
	};

	if (ioctl(fd, RMEM_IOC_UNSAFE, &u))
		return -errno;
	*offset = u.offset;
	return u.run_count;
}

const char *const frontend_names[FE_COUNT] = { "device", "node", "file" };

#define RMEMFS_DIR "/tmp/rmem-selftest"

static bool rmemfs_mounted;

const char *rmemfs_mount(void)
{
	if (rmemfs_mounted)
		return RMEMFS_DIR;
	/* In a namespace of our own, so that it vanishes with us. */
	if (unshare(CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    (mkdir(RMEMFS_DIR, 0755) && errno != EEXIST) ||
	    mount("rmemfs", RMEMFS_DIR, "rmemfs", 0, NULL))
		return NULL;
	rmemfs_mounted = true;
	return RMEMFS_DIR;
}

int rmemfs_umount(void)
{
	if (!rmemfs_mounted)
		return 0;
	if (umount(RMEMFS_DIR))
		return -errno;
	rmemfs_mounted = false;
	return 0;
}

const char *frontend_path(enum frontend fe, const char *name)
{
	static char path[160];

	switch (fe) {
	case FE_NODE:
		snprintf(path, sizeof(path), DEVICE_PATH "-%s", name);
		return path;
	case FE_FILE:
		if (!rmemfs_mount())
			return NULL;
		snprintf(path, sizeof(path), RMEMFS_DIR "/%s", name);
		return path;
	default:
		return NULL;
	}
}

int frontend_open(enum frontend fe, const char *name, int flags)
{
	const char *path = frontend_path(fe, name);
	int fd;

	if (fe == FE_DEVICE)
		return region_open(name, flags);
	if (!path)
		return -ENODEV;
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/*
 * Accesses that may end in SIGBUS
 */

static __thread sigjmp_buf bus_jmp;
static __thread struct sigbus bus_seen;
static __thread int bus_armed;

static void on_bus(int sig, siginfo_t *si, void *uc)
{
	(void)uc;
	if (!bus_armed) {
		/* Nobody expected it: it comes again, and kills. */
		signal(sig, SIG_DFL);
		return;
	}
	bus_seen.addr = si->si_addr;
	bus_seen.code = si->si_code;
	siglongjmp(bus_jmp, 1);
}

static int try_access(void *p, unsigned char *value, bool write,
		      struct sigbus *why)
{
	struct sigaction sa = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &sa, NULL);
	if (sigsetjmp(bus_jmp, 1)) {
		bus_armed = 0;
		if (why)
			*why = bus_seen;
		return -EFAULT;
	}
	__atomic_store_n(&bus_armed, 1, __ATOMIC_SEQ_CST);
	if (write)
		poke(p, *value);
	else
		*value = peek(p);
	__atomic_store_n(&bus_armed, 0, __ATOMIC_SEQ_CST);
	return 0;
}

int try_read(const void *p, unsigned char *value, struct sigbus *why)
{
	unsigned char dummy;

	return try_access((void *)p, value ?: &dummy, false, why);
}

int try_write(void *p, unsigned char value, struct sigbus *why)
{
	return try_access(p, &value, true, why);
}

/*
 * Bytes
 */

static __u64 mix(__u64 x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Eight bytes of the pattern; never zero in any byte. */
static __u64 pattern_word(__u64 word)
{
	return mix(word) | 0x0101010101010101ull;
}

unsigned char pattern(__u64 offset)
{
	return pattern_word(offset / 8) >> (offset % 8 * 8);
}

void pattern_fill(void *buf, __u64 offset, size_t len)
{
	unsigned char *p = buf;
	__u64 w;

	while (len && offset % 8) {
		*p++ = pattern(offset++);
		len--;
	}
	for (; len >= 8; len -= 8, p += 8, offset += 8) {
		w = pattern_word(offset / 8);
		memcpy(p, &w, 8);
	}
	while (len--)
		*p++ = pattern(offset++);
}

ssize_t pattern_diff(const void *buf, __u64 offset, size_t len)
{
	const unsigned char *p = buf;
	size_t i = 0;
	__u64 w;

	while (i < len) {
		if ((offset + i) % 8 == 0 && len - i >= 8) {
			w = pattern_word((offset + i) / 8);
			if (!memcmp(p + i, &w, 8)) {
				i += 8;
				continue;
			}
		}
		if (p[i] != pattern(offset + i))
			return i;
		i++;
	}
	return -1;
}

ssize_t bytes_diff(const void *buf, unsigned char value, size_t len)
{
	const unsigned char *p = buf;
	size_t i;

	for (i = 0; i < len; i++)
		if (p[i] != value)
			return i;
	return -1;
}

void stamp(void *page, __u64 tag)
{
	__u64 *p = page, i;

	for (i = 0; i < 4096 / 8; i++)
		p[i] = mix(tag * 512 + i) | 1;
}

bool stamped(const void *page, __u64 tag)
{
	const __u64 *p = page;
	__u64 i;

	for (i = 0; i < 4096 / 8; i++)
		if (p[i] != (mix(tag * 512 + i) | 1))
			return false;
	return true;
}

/*
 * Processes and threads
 */

pid_t spawn(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid(), pid;

	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	_exit(fn(arg));
}

/* A process that should have ended: where it hangs, and what the module thinks. */
static void tell_where(pid_t pid)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd),
		 "{ grep -H . /proc/%d/status /proc/%d/stack; ps -eo pid,stat,wchan:32,args | grep '[m]iniserve\\|[f]ault'; grep -rH . /sys/kernel/debug/rmem; } 2>/dev/null | sed 's/^/# /'",
		 pid, pid);
	fflush(stdout);
	(void)!system(cmd);
}

void await_end(pid_t pid, int ms)
{
	struct pollfd p = { .events = POLLIN };

	p.fd = syscall(SYS_pidfd_open, pid, 0);
	if (p.fd < 0)
		return;
	poll(&p, 1, ms);
	close(p.fd);
}

int reap(pid_t pid, int ms)
{
	const char *scale = getenv("RMEM_TIMEOUT_SCALE");
	struct timespec now;
	long long end;
	int status;

	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec * 1000LL + now.tv_nsec / 1000000 +
	      (long long)ms * (scale && atoi(scale) > 0 ? atoi(scale) : 1);
	for (;;) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec * 1000LL + now.tv_nsec / 1000000 >= end) {
			tell_where(pid);
			return -ETIMEDOUT;
		}
		await_end(pid, 100);
	}
}

bool asleep_in(pid_t tid, long call)
{
	char path[64];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	f = tid ? fopen(path, "re") : NULL;
	if (!f)
		return false;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n == call;
}

int sysctl_set(const char *name, int value)
{
	char path[128], was[32] = "", text[32];
	int fd, err = 0;

	snprintf(path, sizeof(path), "/proc/sys/%s", name);
	snprintf(text, sizeof(text), "%d\n", value);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* both at the start: a number that is written elsewhere is ignored without a word */
	if (pread(fd, was, sizeof(was) - 1, 0) < 1 || pwrite(fd, text, strlen(text), 0) < 1)
		err = -errno;
	close(fd);
	return err ?: atoi(was);
}
