/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Regions as programs and administrators see them: generic netlink, the three
 * frontends, accesses that may end in SIGBUS, bytes that can be checked.
 *
 * Functions return 0 or more, or -errno.
 */
#ifndef SELFTEST_REGION_H
#define SELFTEST_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <linux/rmem.h>
#include <linux/rmem_netlink.h>

#define CONTROL_PATH "/dev/rmem_control"
#define DEVICE_PATH "/dev/rmem"

/* All regions of these tests have it; left-over ones are found by it. */
#define TEST_INSTANCE "selftest"

/*
 * Raw generic netlink
 */

struct nl {
	int fd;
	__u16 family;
	__u32 events;	/* id of the multicast group */
	__u32 seq;
};

/* A request under construction: nl_start(), nl_put*(), nl_send(). */
struct nl_msg {
	size_t len;
	__u64 buf[1200];
};

typedef void (*nl_cb)(__u8 cmd, const void *attrs, size_t len, void *arg);

int nl_open(struct nl *nl);
void nl_close(struct nl *nl);
void nl_start(struct nl *nl, struct nl_msg *m, __u8 cmd, __u16 flags);
void nl_put(struct nl_msg *m, __u16 type, const void *data, size_t len);
void nl_put_u8(struct nl_msg *m, __u16 type, __u8 v);
void nl_put_u32(struct nl_msg *m, __u16 type, __u32 v);
void nl_put_u64(struct nl_msg *m, __u16 type, __u64 v);
void nl_put_str(struct nl_msg *m, __u16 type, const char *s);
/* Sends it; calls @cb for every answer until the acknowledgment. */
int nl_send(struct nl *nl, struct nl_msg *m, nl_cb cb, void *arg);
/* The attribute's data; NULL if there is none, and *@len is its length. */
const void *nl_attr(const void *attrs, size_t size, __u16 type, size_t *len);

/* Next event within @ms: 1, 0 if none came. */
int nl_listen(struct nl *nl);
int nl_event(struct nl *nl, int ms, __u32 *event, __u32 *id, __u32 *state);

/*
 * Regions
 */

struct region_conf {
	const char *name;	/* NULL: a fresh one */
	__u64 size;
	__u32 chunk;		/* 0: 64 KiB */
	int order;		/* -1: not given */
	__u32 flags;
	__u32 uid, gid;
	__u32 mode;		/* 0: 0600 */
	__u32 fault_ms;		/* 0: not given */
	__u32 sync_ms;		/* 0: not given */
	__u32 on_loss;
	__u64 resident_limit;	/* 0: not given */
	__u64 dirty_limit;	/* likewise */
	__u64 push_threshold;	/* likewise */
};

struct region_stat {
	__u32 id, chunk, flags, uid, gid, mode, state, users, daemon_pid, waiting;
	__u32 fault_ms, sync_ms, on_loss;
	int order;
	__u64 size, resident, dirty, writeback, fetched, pushed;
	__u64 f_demand, f_resident, f_wp, errors, module;
	__u64 resident_limit, dirty_limit, push_threshold;
	char name[RMEM_NAME_SIZE];
	char instance[RMEM_INSTANCE_MAX + 1];
	char reason[RMEM_REASON_SIZE];
	unsigned char writer[RMEM_WRITER_SIZE];
	bool has_writer;
};

/* A name no region had before; in a static buffer. */
const char *region_fresh_name(void);

int region_new(const struct region_conf *c, __u32 *id);
int region_del(__u32 id);
/* When pushing starts; 0: not by that. */
int region_set_threshold(__u32 id, __u64 bytes);
/* Whoever uses it, and whatever is not durable: @lost bytes, if not NULL. */
int region_del_force(__u32 id, __u64 *lost);
int region_abort(__u32 id);
int region_set(__u32 id, __u32 fault_ms, __u32 sync_ms, __u32 on_loss);
int region_set_limits(__u32 id, __u64 resident, __u64 dirty);
int region_get(__u32 id, struct region_stat *st);
int region_get_name(const char *name, struct region_stat *st);
/* Calls @cb for every region that we may see. */
int region_dump(void (*cb)(const struct region_stat *st, void *arg), void *arg);

/* /dev/rmem and RMEM_IOC_ATTACH: the file */
int region_open(const char *name, int flags);
int region_attach(int fd, const char *name);
int region_info(int fd, struct rmem_ioc_info *info);
int region_punch(int fd, __u64 offset, __u64 length);
int region_drop(int fd, __u64 offset, __u64 length);
int region_overwrite(int fd, __u64 offset, __u64 length);
/* Runs from *@offset, which goes on; the number of them. */
int region_unsafe(int fd, __u64 *offset, struct rmem_run *runs, __u32 room);
/* One number of region_get(), by its offset: STAT(id, dirty) */
long long region_stat_u64(__u32 id, size_t offset);
long long region_stat_u32(__u32 id, size_t offset);
#define STAT(id, field)							\
	(sizeof(((struct region_stat *)0)->field) == 8 ?		\
	 region_stat_u64(id, offsetof(struct region_stat, field)) :	\
	 region_stat_u32(id, offsetof(struct region_stat, field)))

enum frontend { FE_DEVICE, FE_NODE, FE_FILE, FE_COUNT };

extern const char *const frontend_names[FE_COUNT];

/*
 * Mounts rmemfs, once, in a mount namespace of the calling thread and its
 * later children; the directory, or NULL (errno) where that is impossible.
 */
const char *rmemfs_mount(void);
int rmemfs_umount(void);
int frontend_open(enum frontend fe, const char *name, int flags);
/* NULL for FE_DEVICE; else in a static buffer */
const char *frontend_path(enum frontend fe, const char *name);

/*
 * Accesses that may end in SIGBUS
 */

struct sigbus {
	void *addr;
	int code;
};

/* 0, or -EFAULT after a SIGBUS, told in *@why if not NULL */
int try_read(const void *p, unsigned char *value, struct sigbus *why);
int try_write(void *p, unsigned char value, struct sigbus *why);

static inline unsigned char peek(const void *p)
{
	return __atomic_load_n((const unsigned char *)p, __ATOMIC_RELAXED);
}

static inline void poke(void *p, unsigned char v)
{
	__atomic_store_n((unsigned char *)p, v, __ATOMIC_RELAXED);
}

/*
 * Bytes
 */

/* What byte @offset of a fresh store is; no page looks like another. */
unsigned char pattern(__u64 offset);
void pattern_fill(void *buf, __u64 offset, size_t len);
/* -1, or where in @buf the first byte is that is not of the pattern */
ssize_t pattern_diff(const void *buf, __u64 offset, size_t len);
/* -1, or where the first byte is that is not @value */
ssize_t bytes_diff(const void *buf, unsigned char value, size_t len);
/* Fill a page with what only @tag writes there; and compare. */
void stamp(void *page, __u64 tag);
bool stamped(const void *page, __u64 tag);

/*
 * Processes and threads
 */

/* fork; the child ends with what @fn returns */
pid_t spawn(int (*fn)(void *arg), void *arg);
/* Until the child has ended, at most @ms. */
void await_end(pid_t pid, int ms);
/* Wait at most @ms (times RMEM_TIMEOUT_SCALE): wait status, or -ETIMEDOUT. */
int reap(pid_t pid, int ms);

/* Is the task of this process asleep in that system call? */
bool asleep_in(pid_t tid, long call);

/* Sets one below /proc/sys, a small number; what it was, or -errno. */
int sysctl_set(const char *name, int value);

#endif /* SELFTEST_REGION_H */
