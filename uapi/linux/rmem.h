/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * rmem: memory that lives on another machine, mapped through the page cache.
 *
 * DOC: Overview
 *
 * A *region* is a range of bytes with a name, a fixed size and one page cache.
 * Programs reach it in three ways, which all end in the same page cache:
 *
 *   /dev/rmem         open, RMEM_IOC_ATTACH by name, then mmap/pread/pwrite/fsync
 *   /dev/rmem-NAME    the region's own node
 *   DIR/NAME          a regular file, after mount -t rmemfs rmemfs DIR
 *
 * The bytes come from a *daemon* (rmemd) through /dev/rmem_control. Regions are
 * made and unmade by generic netlink (rmem_netlink.h); the daemon then declares
 * with RMEM_IOC_SERVE that a region's requests shall appear in its *ring*.
 *
 *   region fault ─▶ struct rmem_request in the ring ─▶ daemon ─▶ RMEM_IOC_FILL
 *                   or RMEM_IOC_RECEIVE
 *   dirty pages  ─▶ struct rmem_request in the ring ─▶ RMEM_IOC_WRITEOUT, or
 *                   RMEM_IOC_RUNS and RMEM_IOC_SEND ─▶ RMEM_IOC_COMPLETE once
 *                   the bytes are durable at the store
 *
 * DOC: Conventions
 *
 * Every ioctl takes a struct whose first field, @size, is sizeof() of the
 * caller's version of it. A caller older than the kernel has its missing tail
 * read as zero; a caller newer than the kernel is served if its unknown tail is
 * all zero: an ioctl is known by its type and number, whatever size its command
 * carries. Offsets and lengths are in bytes. Pointers travel as __u64. There
 * are no kernel addresses in this interface; ids and cookies are opaque.
 *
 * DOC: Errno dictionary
 *
 *   EINVAL      malformed: @size smaller than the first version, a value out
 *               of range, an unaligned offset, a name that is none
 *   E2BIG       @size larger than known here and the unknown tail is not zero
 *   EOPNOTSUPP  an unknown flag or a non-zero reserved field: this kernel does
 *               not know the feature
 *   ENOTTY      no such ioctl on this kind of file
 *   EFAULT      a buffer could not be read or written
 *   ENOENT      no region of that name or id; or a cookie that is no longer
 *               (or never was) outstanding in this generation: harmless,
 *               forget it
 *   ENOTCONN    the file is not attached to a region yet; or the control fd
 *               has not been set up; or it does not serve that region
 *   EISCONN     attached, set up or served already, by this very file; or the
 *               region has a lane already
 *   EBUSY       served by another live daemon; region open or mapped; dirty
 *   EBADF       the file is not open for writing
 *   EEXIST      netlink: a region of that name exists
 *   EACCES      the region's owner, group and mode do not allow it
 *   EROFS       writing to a read-only region
 *   EPERM       changing the size of a region; netlink: the descriptor given
 *               as authority is not /dev/rmem_control, open for writing
 *   ENOBUFS     a buffer is too small for the answer
 *   ENOSPC      writing beyond the end; or the store is full (fsync)
 *   ESPIPE      RMEM_IOC_FILL or _RECEIVE out of order: @offset is neither 0 nor
 *               where the request's cursor stands
 *   EAGAIN, EPIPE, ECONNRESET, ENOMSG, EBADMSG
 *               RMEM_IOC_RECEIVE and _SEND: what befell the socket or its bytes,
 *               see there
 *   EIO         the store failed, or the region's deadline passed (fsync); or
 *               the region was unmade by force
 *   ESTALE      the region has failed: its store is another one now, or its
 *               writer claim was taken over
 *   ENODEV      the region is being unmade
 *   ENOMEM      no memory now; the call may be repeated
 *
 * A fault that cannot be served ends in SIGBUS with si_addr set; RMEM_IOC_INFO
 * tells why.
 */
#ifndef _UAPI_LINUX_RMEM_H
#define _UAPI_LINUX_RMEM_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Version of this file. The daemon refuses a module of another major. */
#define RMEM_UAPI_MAJOR 1
#define RMEM_UAPI_MINOR 0

/*
 * Region names are [A-Za-z0-9][A-Za-z0-9_.-]{0,63} (RMEM_NAME_MAX in
 * rmem_netlink.h); NUL-terminated here.
 */
#define RMEM_NAME_SIZE 72

#define RMEM_CHUNK_MIN 4096u
#define RMEM_CHUNK_MAX (2u << 20)
#define RMEM_REASON_SIZE 128

#define RMEM_IOC_TYPE 0xE5

/**
 * enum rmem_region_state - is somebody there to answer?
 * @RMEM_STATE_ACTIVE: a daemon serves the region and reaches its store
 * @RMEM_STATE_DEGRADED: a daemon serves it but does not reach the store
 * @RMEM_STATE_QUIESCED: no daemon serves it; requests wait in the kernel
 * @RMEM_STATE_FAILED: it cannot be served any more (ESTALE); resident pages
 *	stay readable, dirty pages are kept
 *
 * In every state resident pages are readable and dirty pages writable.
 */
enum rmem_region_state {
	RMEM_STATE_ACTIVE = 0,
	RMEM_STATE_DEGRADED = 1,
	RMEM_STATE_QUIESCED = 2,
	RMEM_STATE_FAILED = 3,
};

/**
 * enum rmem_on_loss - what befalls a task once the fault timeout has passed
 * @RMEM_ON_LOSS_WAIT: it goes on waiting, killably
 * @RMEM_ON_LOSS_ERROR: SIGBUS for mapped access, EIO for read and write
 * @RMEM_ON_LOSS_KILL: SIGKILL of its thread group; kernel threads and remote
 *	access get the error instead
 */
enum rmem_on_loss {
	RMEM_ON_LOSS_WAIT = 0,
	RMEM_ON_LOSS_ERROR = 1,
	RMEM_ON_LOSS_KILL = 2,
};

/* Region flags, fixed when the region is made. */
#define RMEM_REGION_READ_ONLY (1u << 0)

/*
 * Part 1: ioctls on a region's file (/dev/rmem, /dev/rmem-NAME, rmemfs file)
 */

/**
 * struct rmem_ioc_attach - RMEM_IOC_ATTACH, only on /dev/rmem
 * @size: sizeof(struct rmem_ioc_attach)
 * @flags: must be 0
 * @name: the region's name
 *
 * From now on this open file is that region. The access mode of open(2) is
 * checked against the region's owner, group and mode: EACCES; EROFS for a
 * writable file and a read-only region; EISCONN the second time.
 */
struct rmem_ioc_attach {
	__u32 size;
	__u32 flags;
	char name[RMEM_NAME_SIZE];
};
#define RMEM_IOC_ATTACH _IOW(RMEM_IOC_TYPE, 0x00, struct rmem_ioc_attach)

/**
 * struct rmem_ioc_info - RMEM_IOC_INFO: what is this file?
 * @size: sizeof(struct rmem_ioc_info)
 * @flags: must be 0
 * @region_id: out: the region's id, not reused soon
 * @region_flags: out: RMEM_REGION_*
 * @size_bytes: out: exact size; fixed
 * @chunk_bytes: out: unit of transfer, a power of two
 * @state: out: enum rmem_region_state
 * @resident_bytes: out: in the page cache
 * @dirty_bytes: out: written, not under way to the store
 * @writeback_bytes: out: under way, not yet durable
 * @fetched_bytes: out: put into the page cache since the region was made
 * @pushed_bytes: out: made durable since the region was made
 * @name: out
 * @reason: out: why @state is what it is, or empty
 *
 * @dirty_bytes + @writeback_bytes is 0 if and only if everything written
 * before the call is durable.
 */
struct rmem_ioc_info {
	__u32 size;
	__u32 flags;
	__u32 region_id;
	__u32 region_flags;
	__aligned_u64 size_bytes;
	__u32 chunk_bytes;
	__u32 state;
	__aligned_u64 resident_bytes;
	__aligned_u64 dirty_bytes;
	__aligned_u64 writeback_bytes;
	__aligned_u64 fetched_bytes;
	__aligned_u64 pushed_bytes;
	char name[RMEM_NAME_SIZE];
	char reason[RMEM_REASON_SIZE];
};
#define RMEM_IOC_INFO _IOWR(RMEM_IOC_TYPE, 0x01, struct rmem_ioc_info)

/**
 * struct rmem_ioc_range - RMEM_IOC_PUNCH, RMEM_IOC_DROP and RMEM_IOC_OVERWRITE
 * @size: sizeof(struct rmem_ioc_range)
 * @flags: must be 0
 * @offset: in bytes
 * @length: in bytes; a range that leaves the region is clipped to it, and
 *	0 means up to the end
 *
 * PUNCH (file open for writing): the range reads as zeros from now on and the
 * store may free its space; durable when the call returns 0. Works on every
 * frontend; on an rmemfs file fallocate(FALLOC_FL_PUNCH_HOLE) is the same.
 *
 * DROP: evicts the range's clean pages, mapped ones too. Mappings stay valid.
 *
 * OVERWRITE (file open for writing): the caller is about to write all of the range,
 * by stores, and its bytes are of no use any more. Pages that lie wholly in it and
 * are not resident need not be fetched then: they become dirty pages of zeros, as if
 * written, with all that follows (limits, waiting for them, pushing). Resident pages
 * and those that the range only touches are left alone. Whole pages that are written by
 * write(2) are not fetched anyway.
 */
struct rmem_ioc_range {
	__u32 size;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 length;
};
#define RMEM_IOC_PUNCH _IOW(RMEM_IOC_TYPE, 0x02, struct rmem_ioc_range)
#define RMEM_IOC_DROP _IOW(RMEM_IOC_TYPE, 0x03, struct rmem_ioc_range)
#define RMEM_IOC_OVERWRITE _IOW(RMEM_IOC_TYPE, 0x05, struct rmem_ioc_range)

/* One run of bytes: offset is counted from the region's start. */
struct rmem_run {
	__aligned_u64 offset;
	__aligned_u64 length;
};

/**
 * struct rmem_ioc_unsafe - RMEM_IOC_UNSAFE: which bytes are not durable?
 * @size: sizeof(struct rmem_ioc_unsafe)
 * @flags: must be 0
 * @offset: in: where to begin, in bytes; out: where to go on, the region's
 *	size at the end
 * @runs: address of struct rmem_run[@run_count]
 * @run_count: in: room; out: used
 * @__reserved: must be 0
 *
 * Dirty pages and those under writeback, in rising order, clipped to the
 * region. They are resident: reading them waits for nobody, in every state of
 * the region. A picture of the moment while somebody writes or pushes; of a
 * FAILED region, the list of what only this kernel has.
 */
struct rmem_ioc_unsafe {
	__u32 size;
	__u32 flags;
	__aligned_u64 offset;
	__aligned_u64 runs;
	__u32 run_count;
	__u32 __reserved;
};
#define RMEM_IOC_UNSAFE _IOWR(RMEM_IOC_TYPE, 0x04, struct rmem_ioc_unsafe)

/*
 * Part 2: the daemon's side, ioctls on /dev/rmem_control
 *
 * One open control file is one daemon's channel: one ring, any number of
 * regions. Open it O_CLOEXEC and never pass it on: the daemon is alive for as
 * long as the open file is.
 */

/* Feature bits of RMEM_IOC_SETUP. */
#define RMEM_FEATURE_RECEIVE (1ull << 0) /* RMEM_IOC_RECEIVE */
#define RMEM_FEATURE_SEND (1ull << 1) /* RMEM_IOC_RUNS, RMEM_IOC_SEND */
#define RMEM_FEATURE_LANE (1ull << 2) /* RMEM_IOC_LANE */
#define RMEM_FEATURE_EARLY (1ull << 3) /* RMEM_FILL_EARLY */
#define RMEM_FEATURES_KNOWN \
	(RMEM_FEATURE_RECEIVE | RMEM_FEATURE_SEND | RMEM_FEATURE_LANE | RMEM_FEATURE_EARLY)

/**
 * struct rmem_ioc_setup - RMEM_IOC_SETUP: make the ring
 * @size: sizeof(struct rmem_ioc_setup)
 * @flags: must be 0
 * @ring_entries: a power of two, 64 to 65536
 * @uapi_major: in: the caller's RMEM_UAPI_MAJOR (EOPNOTSUPP if another);
 *	out: the module's
 * @uapi_minor: out: the module's
 * @features: in: wanted bits; out: bits granted (a subset)
 * @ring_bytes: out: length to mmap(2), shared, read and write, at offset 0
 * @generation: out: number of this channel, never 0, never reused
 *
 * EISCONN the second time on one file.
 */
struct rmem_ioc_setup {
	__u32 size;
	__u32 flags;
	__u32 ring_entries;
	__u16 uapi_major;
	__u16 uapi_minor;
	__aligned_u64 features;
	__u32 ring_bytes;
	__u32 generation;
};
#define RMEM_IOC_SETUP _IOWR(RMEM_IOC_TYPE, 0x40, struct rmem_ioc_setup)

/**
 * struct rmem_ioc_region - RMEM_IOC_SERVE, RMEM_IOC_PUSH
 * @size: sizeof(struct rmem_ioc_region)
 * @flags: must be 0
 * @region_id: id of the region
 * @__reserved: must be 0
 *
 * SERVE: the region's requests, new and outstanding ones alike, appear in this
 * channel's ring, with new cookies; its state becomes DEGRADED until
 * RMEM_IOC_STATE says ACTIVE. EBUSY while another live channel serves it.
 *
 * PUSH: turns the region's dirty pages into RMEM_OP_WRITE requests, without
 * waiting for any of them.
 */
struct rmem_ioc_region {
	__u32 size;
	__u32 flags;
	__u32 region_id;
	__u32 __reserved;
};
#define RMEM_IOC_SERVE _IOW(RMEM_IOC_TYPE, 0x41, struct rmem_ioc_region)
#define RMEM_IOC_PUSH _IOW(RMEM_IOC_TYPE, 0x46, struct rmem_ioc_region)

/* The page cache shall tell (RMEM_OP_HIT) when these bytes are first used. */
#define RMEM_FILL_MARK (1u << 0)
/* The bytes are zeros; @addr is not looked at. */
#define RMEM_FILL_ZERO (1u << 1)
/* These bytes shall be visible at once, ahead of the others. */
#define RMEM_FILL_EARLY (1u << 3)

/**
 * struct rmem_ioc_fill - RMEM_IOC_FILL: bytes for a fetch, by copy
 * @size: sizeof(struct rmem_ioc_fill)
 * @flags: RMEM_FILL_*
 * @cookie: the fetch
 * @offset: where the request's cursor stands: bytes filled so far, counted
 *	from the request's offset; ESPIPE otherwise. 0 is always right: it
 *	forgets what had come and starts over. ENOMEM at the last byte sets the
 *	cursor back to 0.
 * @length: bytes at @addr; not beyond the end of the request
 * @addr: source buffer in the caller; must not lie in a mapping of the region
 *
 * Nothing becomes visible before the request is complete: with its last byte
 * the whole range enters the page cache at once and the waiters go on. Pages
 * that are resident already are left as they are.
 *
 * RMEM_FILL_EARLY, which needs RMEM_FEATURE_EARLY, is for pages that somebody waits for
 * while the rest takes its time: @offset and @length are of whole pages anywhere in the
 * request, but for the end of its last one, and have nothing to do with the cursor. They enter
 * the page cache at once. The request goes on as one that nobody waits for: who still
 * waits for another page of it tells so again (RMEM_REQ_JOINED). EAGAIN: a write or a
 * punch has overtaken the request, and nothing has entered. Not with RMEM_FILL_ZERO.
 */
struct rmem_ioc_fill {
	__u32 size;
	__u32 flags;
	__aligned_u64 cookie;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 addr;
};
#define RMEM_IOC_FILL _IOW(RMEM_IOC_TYPE, 0x42, struct rmem_ioc_fill)

/* @checksum is that of the request's bytes, all of them. */
#define RMEM_RECEIVE_CHECKSUM (1u << 2)

/**
 * struct rmem_ioc_receive - RMEM_IOC_RECEIVE: bytes for a fetch, from a socket
 * @size: sizeof(struct rmem_ioc_receive)
 * @flags: RMEM_FILL_MARK, RMEM_RECEIVE_CHECKSUM
 * @cookie: the fetch
 * @offset: as of RMEM_IOC_FILL; the two may take turns
 * @length: how many of the socket's next bytes belong here; not beyond the end
 *	of the request
 * @fd: the socket
 * @checksum: CRC-32C; 0 without its flag
 * @received: out: bytes taken from the socket by this call, with whatever result:
 *	so far the cursor has moved
 * @error: out: with ECONNRESET, the errno that the socket gave; else 0
 * @__reserved: must be 0
 *
 * The module receives from the socket into the folios of the request: nobody
 * copies the bytes a second time. The call takes what is there and never waits
 * for more. Needs RMEM_FEATURE_RECEIVE.
 *
 * The socket is a connected stream of TCP, over IPv4 or IPv6, or of AF_UNIX, that
 * the caller itself has opened or accepted: EINVAL for anything else. TCP may be
 * under kTLS. What its buffer holds in front of the payload, the caller has
 * received before; which bytes belong to which fetch is the caller's business.
 *
 *   0           all of @length is taken; if it was the end of the request, the
 *               range has entered the page cache as by RMEM_IOC_FILL
 *   EAGAIN      the socket is empty; the rest by another call once it is readable
 *   EBUSY       another call receives from the socket at this moment
 *   EPIPE       the peer has closed the connection
 *   ECONNRESET  the connection has failed, see @error
 *   ENOMSG      kTLS: the next record carries no data. Once the caller has
 *               received it (recvmsg with TLS_GET_RECORD_TYPE) it may go on
 *   EBADMSG     all bytes are there and the checksum is another one: none of them
 *               is used, the cursor is back at 0, the request still outstanding
 *   ENOMEM      @received 0: no memory for the request; else as of RMEM_IOC_FILL
 *
 * A request that ends for other reasons while its bytes come (deadline, failed
 * region) is ENOENT at the next call; the rest of its bytes is still in the socket.
 */
struct rmem_ioc_receive {
	__u32 size;
	__u32 flags;
	__aligned_u64 cookie;
	__aligned_u64 offset;
	__aligned_u64 length;
	__s32 fd;
	__u32 checksum;
	__aligned_u64 received;
	__u32 error;
	__u32 __reserved;
};
#define RMEM_IOC_RECEIVE _IOWR(RMEM_IOC_TYPE, 0x48, struct rmem_ioc_receive)

/**
 * struct rmem_ioc_complete - RMEM_IOC_COMPLETE: requests that are over
 * @size: sizeof(struct rmem_ioc_complete)
 * @flags: must be 0
 * @error: a positive errno, one for all the cookies, see below
 * @count: number of cookies, 1 to 4096
 * @cookies: address of @count __u64
 * @unknown: out: how many of them were not outstanding (ignored)
 * @__reserved: must be 0
 *
 * RMEM_OP_FETCH    EIO, ESTALE: fails, waiters get SIGBUS or the errno;
 *                  ECANCELED: a prefetch is given up; if somebody waits for
 *                  it, it is published again as a demand fetch, under the
 *                  same cookie
 * RMEM_OP_WRITE,   0: the bytes are durable, the pages are clean unless
 * RMEM_OP_ZERO     written since. EAGAIN: not durable, the pages are dirty
 *                  again, nobody is told. ENOSPC, EIO, EROFS, ESTALE: dirty
 *                  again, and the fsync that waits gets the errno.
 */
struct rmem_ioc_complete {
	__u32 size;
	__u32 flags;
	__u32 error;
	__u32 count;
	__aligned_u64 cookies;
	__u32 unknown;
	__u32 __reserved;
};
#define RMEM_IOC_COMPLETE _IOWR(RMEM_IOC_TYPE, 0x43, struct rmem_ioc_complete)

/**
 * struct rmem_ioc_writeout - RMEM_IOC_WRITEOUT: the bytes of a write, by copy
 * @size: sizeof(struct rmem_ioc_writeout)
 * @flags: must be 0
 * @cookie: an RMEM_OP_WRITE
 * @addr: destination buffer, @addr_bytes long: at least the request's @payload
 * @addr_bytes: its length; ENOBUFS when it is too small
 * @runs: address of an array of struct rmem_run, ordered, not adjacent
 * @run_count: in: entries there is room for (ENOBUFS: too few); out: runs
 * @__reserved: must be 0
 * @bytes: out: bytes copied; the runs lie one behind the other at @addr
 *
 * May be called again for the same cookie, for instance after the connection
 * was lost; it then gives the pages' newest bytes. The last byte of the region
 * is the last that is ever written.
 */
struct rmem_ioc_writeout {
	__u32 size;
	__u32 flags;
	__aligned_u64 cookie;
	__aligned_u64 addr;
	__aligned_u64 addr_bytes;
	__aligned_u64 runs;
	__u32 run_count;
	__u32 __reserved;
	__aligned_u64 bytes;
};
#define RMEM_IOC_WRITEOUT _IOWR(RMEM_IOC_TYPE, 0x44, struct rmem_ioc_writeout)

/* All of it is zeros. */
#define RMEM_RUN_ZERO (1u << 0)

/**
 * struct rmem_write_run - one run of a write's bytes
 * @offset: counted from the region's start
 * @length: in bytes
 * @flags: RMEM_RUN_ZERO or 0
 * @__reserved: 0
 */
struct rmem_write_run {
	__aligned_u64 offset;
	__aligned_u64 length;
	__u32 flags;
	__u32 __reserved;
};

/**
 * struct rmem_ioc_runs - RMEM_IOC_RUNS: which bytes does a write have?
 * @size: sizeof(struct rmem_ioc_runs)
 * @flags: must be 0
 * @cookie: an RMEM_OP_WRITE
 * @runs: address of an array of struct rmem_write_run, in rising order; adjacent
 *	ones differ in their flags
 * @run_count: in: entries there is room for (ENOBUFS: too few, one a page is
 *	enough); out: runs
 * @__reserved: must be 0
 *
 * What RMEM_IOC_WRITEOUT would give, without the bytes: the daemon sends those of the
 * runs with RMEM_IOC_SEND, and tells the store of the zeros. May be called again.
 *
 * A picture of the moment: a page that is written meanwhile is dirty again, so
 * whatever the store is told of it is not the last that it hears. Needs
 * RMEM_FEATURE_SEND.
 */
struct rmem_ioc_runs {
	__u32 size;
	__u32 flags;
	__aligned_u64 cookie;
	__aligned_u64 runs;
	__u32 run_count;
	__u32 __reserved;
};
#define RMEM_IOC_RUNS _IOWR(RMEM_IOC_TYPE, 0x4f, struct rmem_ioc_runs)

/**
 * struct rmem_ioc_send - RMEM_IOC_SEND: bytes of a write, to a socket
 * @size: sizeof(struct rmem_ioc_send)
 * @flags: must be 0
 * @region_id: id of a region that this channel serves
 * @fd: the socket
 * @offset: first byte, counted from the region's start
 * @length: in bytes; not beyond the region's end
 * @sent: out: bytes that the socket has taken by this call, with whatever result
 * @error: out: with ECONNRESET, the errno that the socket gave; else 0
 * @__reserved: must be 0
 *
 * The module sends from the folios of the page cache: the bytes are copied once, into
 * the socket. The call sends what there is room for and never waits for more. Needs
 * RMEM_FEATURE_SEND.
 *
 * The bytes are the newest there are, even if they change while they are sent: then
 * the page is dirty again and will be written once more. So whoever has to know them
 * before they are sent, for a checksum, takes RMEM_IOC_WRITEOUT.
 *
 * What an outstanding RMEM_OP_WRITE consists of is resident. What it consisted of
 * stays so, dirty, when it has ended otherwise than by RMEM_IOC_COMPLETE with 0, at its
 * deadline for instance: a message that has been begun can be completed.
 *
 * The socket is one that RMEM_IOC_RECEIVE would take; TCP may be under kTLS, and then
 * the bytes are data. That nothing else is sent there meanwhile, a message of a lane
 * for instance, is the caller's business.
 *
 *   0           all of @length is sent
 *   EAGAIN      the socket is full; the rest by another call once it is writable
 *   EBUSY       another call sends to the socket at this moment
 *   ENOENT      a byte is not resident: the next one behind @sent
 *   ESTALE      the region has failed
 *   EPIPE       the connection is over
 *   ECONNRESET  the connection has failed, see @error
 *   ENOMEM      no memory for the socket's buffers
 */
struct rmem_ioc_send {
	__u32 size;
	__u32 flags;
	__u32 region_id;
	__s32 fd;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 sent;
	__u32 error;
	__u32 __reserved;
};
#define RMEM_IOC_SEND _IOWR(RMEM_IOC_TYPE, 0x49, struct rmem_ioc_send)

/**
 * struct rmem_ioc_prefetch - RMEM_IOC_PREFETCH: fetch before the fault
 * @size: sizeof(struct rmem_ioc_prefetch)
 * @flags: RMEM_PREFETCH_*
 * @region_id: id of a region that this channel serves
 * @queued: out: number of fetches queued
 * @offset: in bytes; rounded down to a chunk
 * @length: in bytes; clipped to the region
 *
 * Every absent chunk of the range that nobody fetches yet appears in the ring
 * as RMEM_OP_FETCH with RMEM_REQ_PREFETCH. At most 4096 are outstanding. Once
 * somebody waits for it, it appears a second time, under the same cookie and
 * without that flag.
 *
 * A region with a resident limit takes what there is room for; EDQUOT means none.
 */
struct rmem_ioc_prefetch {
	__u32 size;
	__u32 flags;
	__u32 region_id;
	__u32 queued;
	__aligned_u64 offset;
	__aligned_u64 length;
};
/* Evict for it what a demand would evict, too. */
#define RMEM_PREFETCH_MAKE_ROOM (1u << 0)
#define RMEM_IOC_PREFETCH _IOWR(RMEM_IOC_TYPE, 0x45, struct rmem_ioc_prefetch)

/**
 * struct rmem_ioc_state - RMEM_IOC_STATE: the daemon's view of the store
 * @size: sizeof(struct rmem_ioc_state)
 * @flags: must be 0
 * @region_id: id of a region that this channel serves
 * @state: RMEM_STATE_ACTIVE, _DEGRADED or _FAILED; FAILED is final
 * @reason: why, for people; NUL-terminated, may be empty
 *
 * FAILED ends every waiting fetch with ESTALE and makes dirty what was being
 * written.
 */
struct rmem_ioc_state {
	__u32 size;
	__u32 flags;
	__u32 region_id;
	__u32 state;
	char reason[RMEM_REASON_SIZE];
};
#define RMEM_IOC_STATE _IOW(RMEM_IOC_TYPE, 0x47, struct rmem_ioc_state)

/* Bytes of the longest message of a lane, and of the longest header of an answer. */
#define RMEM_LANE_MESSAGE_MAX 256u

/* They take the answers as well. */
#define RMEM_LANE_TAKE (1u << 0)
/* The end of a lane: the payload that was taken last does not match its checksum. */
#define RMEM_LANE_DAMAGED (1u << 1)

/**
 * struct rmem_ioc_lane - RMEM_IOC_LANE: the faulting threads speak with the store
 * @size: sizeof(struct rmem_ioc_lane)
 * @flags: RMEM_LANE_TAKE or 0; out: whether they do; at its end RMEM_LANE_DAMAGED or 0
 * @region_id: id of a region that this channel serves
 * @fd: a socket that leads to the region's store; -1: none from now on
 * @lane: a number for it, not 0, for @lane of struct rmem_request
 * @message_bytes: length of the message, at most RMEM_LANE_MESSAGE_MAX
 * @message: address of a message that asks for bytes
 * @cookie_at: where in the message the request's cookie belongs, 8 bytes
 * @offset_at: likewise, the offset of its first byte
 * @length_at: likewise, its length in bytes
 * @checksum_at: where the CRC-32C of all that stands in front of it belongs, 4
 *	bytes; 0: the message has none
 * @answer: address of the header of an answer with all that was asked for; with @fd
 *	-1: where the module puts a header that it has taken
 * @answer_mask: address of as many bytes: the bits of the header that are always the
 *	same
 * @answer_bytes: length of the header, at most RMEM_LANE_MESSAGE_MAX; its payload
 *	follows. With @fd -1: room at @answer; out: how much of a header was taken
 * @answer_cookie_at: where in the header the request's cookie stands, 8 bytes
 * @answer_offset_at: likewise, the offset of its first byte
 * @answer_length_at: likewise, its length in bytes
 * @answer_payload_at: likewise, the length of the payload, 4 bytes: the same
 * @answer_sum_at: likewise, the CRC-32C of the payload, 4 bytes; 0: there is none
 * @answer_checksum_at: as @checksum_at
 * @taken: out, with @fd -1: how much of that header's payload was taken
 * @at_once: requests under way on it at most; 0: as many as there are
 * @__reserved: must be 0
 *
 * With a lane the first task that misses a chunk sends the message itself, with
 * the three numbers and the checksum put in, each little-endian. The request is in
 * the ring before that, with @lane, and poll(2) wakes nobody for it: the daemon
 * takes it from there when the answer comes. What the module cannot send
 * (the socket is full, in use, or broken) it publishes once more, with
 * RMEM_REQ_AGAIN and without @lane, and then it wakes the daemon as ever, as it
 * does for all that is not a first demand, and for what is more than @at_once.
 * Needs RMEM_FEATURE_LANE.
 *
 * RMEM_LANE_TAKE: the tasks that have asked take the answers out of the socket, each
 * what comes while it waits, and the daemon must not receive from it; it may watch for
 * the connection's end (EPOLLRDHUP). Needs TCP. The requests are not in the
 * ring; there is RMEM_OP_MISS instead, and now and then a wake-up. An answer is taken if it has exactly
 * the form described, and answers a request that was asked for on this lane. Its bytes
 * go the way of RMEM_IOC_RECEIVE. Whatever else comes (an error, a message of another
 * kind, the end) is the daemon's: RMEM_OP_LANE tells him that the
 * module takes nothing any more. So it does when nobody is left who could. The
 * daemon then ends the lane, and goes on reading where the module has stopped: that is
 * behind @answer_bytes of a header and @taken bytes of a payload.
 *
 * The end of such a lane puts into the ring what was asked for there and has not
 * been answered, with @lane; what finds no room there is published without it as soon as it
 * does. By the next RMEM_LANE_TAKE under the same number they are the module's again.
 *
 * The socket is one that RMEM_IOC_RECEIVE would take, without kTLS (EINVAL). The
 * module keeps it open until the lane ends: by @fd -1, with the region, or with the
 * channel. Messages are sent whole or not at all; should the socket take a part of
 * one, it is shut down. Its memory is allocated without waiting for file systems or
 * disks, from then on.
 *
 * To send something itself the caller ends the lane first: when that call has
 * returned, nothing is being sent or taken. The same socket may become a lane again
 * afterwards, under the same number; what had been asked under it stays asked.
 *
 *   EISCONN     the region has a lane; end it first
 *   EINVAL      @lane 0; a message or header too long, or in which the fields overlap or
 *               reach beyond its end; with @fd -1, anything but @answer and
 *               @answer_bytes is not 0; without RMEM_LANE_TAKE, any of what
 *               describes answers is not 0
 */
struct rmem_ioc_lane {
	__u32 size;
	__u32 flags;
	__u32 region_id;
	__s32 fd;
	__u32 lane;
	__u32 message_bytes;
	__aligned_u64 message;
	__u16 cookie_at;
	__u16 offset_at;
	__u16 length_at;
	__u16 checksum_at;
	__aligned_u64 answer;
	__aligned_u64 answer_mask;
	__u32 answer_bytes;
	__u16 answer_cookie_at;
	__u16 answer_offset_at;
	__u16 answer_length_at;
	__u16 answer_payload_at;
	__u16 answer_sum_at;
	__u16 answer_checksum_at;
	__aligned_u64 taken;
	__u32 at_once;
	__u32 __reserved;
};
#define RMEM_IOC_LANE _IOWR(RMEM_IOC_TYPE, 0x4e, struct rmem_ioc_lane)

/*
 * Numbers kept free, so that they mean one thing for ever:
 *   0x4a dirty log get and clear     0x4b freeze and thaw writers
 *   0x4c read resident pages         0x4d hand over the writer claim
 */

/*
 * Part 3: the ring
 *
 * Kernel to daemon, one direction only, in memory shared by mmap(2) of the
 * control file: a header page, then @entries requests.
 *
 *   head  written by the kernel alone (store-release after the entry)
 *   tail  written by the daemon alone (store-release after it has copied the
 *         entry out)
 *
 * Both run freely and wrap at 2^32; entry i is at index i % entries. The ring
 * is empty when they are equal. The kernel trusts only its own copy of head;
 * a tail that makes no sense stops publication until it does. poll(2) reports
 * POLLIN while the ring is not empty, but nobody is woken for a FETCH with @lane, and
 * not for each MISS.
 * What finds no room waits in the kernel.
 */
#define RMEM_RING_MAGIC 0x676e6972 /* "ring" */

struct rmem_ring_header {
	__u32 magic;
	__u32 entries;
	__u32 entry_bytes;
	__u32 entries_offset;
	__u32 __reserved0[12];
	__u32 head;
	__u32 __reserved1[15];
	__u32 tail;
	__u32 __reserved2[15];
};

/**
 * enum rmem_op - what is asked of the daemon
 * @RMEM_OP_FETCH: bytes wanted; answer with FILL or RECEIVE, or COMPLETE with an
 *	error
 * @RMEM_OP_WRITE: dirty pages of one chunk; WRITEOUT, or RUNS and SEND, then COMPLETE
 *	when durable
 * @RMEM_OP_ZERO: the range shall read as zeros; COMPLETE when durable
 * @RMEM_OP_HIT: no answer; bytes filled with RMEM_FILL_MARK were first used
 * @RMEM_OP_MISS: no answer; a thread has missed bytes and fetches them by itself
 *	(RMEM_LANE_TAKE)
 * @RMEM_OP_LANE: the daemon has to receive on @lane himself from now on, see
 *	RMEM_LANE_TAKE
 */
enum rmem_op {
	RMEM_OP_FETCH = 1,
	RMEM_OP_WRITE = 2,
	RMEM_OP_ZERO = 3,
	RMEM_OP_HIT = 4,
	RMEM_OP_MISS = 5,
	RMEM_OP_LANE = 6,
};

/* Nobody waits for this fetch yet. */
#define RMEM_REQ_PREFETCH (1u << 0)
/* An fsync waits for this write. */
#define RMEM_REQ_SYNC (1u << 1)
/* It was published before, to this daemon or another. */
#define RMEM_REQ_AGAIN (1u << 2)
/*
 * A task waits by now for what this daemon was told as a prefetch. The cookie is
 * the same and wants no answer of its own: it may have been answered meanwhile.
 */
#define RMEM_REQ_JOINED (1u << 3)
/*
 * With RMEM_REQ_SYNC: the fsync has published all that it waits for. A hint, for a
 * daemon that can ask for the flush right behind this write; it may never come.
 */
#define RMEM_REQ_LAST (1u << 4)

/**
 * struct rmem_request - one ring entry
 * @cookie: names the request in FILL, WRITEOUT and COMPLETE; 0 where there is no
 *	answer. Valid only in the generation (channel) it was published in.
 * @region_id: id of the region
 * @op: enum rmem_op
 * @flags: RMEM_REQ_*
 * @__reserved: 0
 * @offset: first byte
 * @length: bytes; never beyond the region's end
 * @demand_offset: FETCH, MISS: the byte whose absence was noticed first; HIT: the
 *	byte used
 * @payload: WRITE: bytes that it has, zeros included
 * @tid: FETCH, MISS, HIT: thread that noticed, in the initial pid namespace; 0 = none
 * @lane: FETCH: the thread asks by itself on this lane (RMEM_IOC_LANE); 0: nobody
 *	has asked. LANE: its number
 * @__reserved1: 0
 */
struct rmem_request {
	__aligned_u64 cookie;
	__u32 region_id;
	__u8 op;
	__u8 flags;
	__u16 __reserved;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 demand_offset;
	__aligned_u64 payload;
	__u32 tid;
	__u32 lane;
	__u32 __reserved1[2];
};

/*
 * DOC: What happens when the daemon dies
 *
 * The kernel notices when the last reference to the control file goes away
 * (release), whether by exit, by SIGKILL or by close.
 *
 * - The regions it served become QUIESCED, and their lanes end. Nothing is lost,
 *   zeroed or unmapped; resident pages stay readable and dirty pages writable.
 * - Outstanding requests stay in the kernel. A half-filled fetch forgets what
 *   it had. Tasks go on waiting, killably; the clock of --fault-timeout, which
 *   started when they began to wait, runs on.
 * - The next RMEM_IOC_SERVE of the region publishes all of them again, under
 *   new cookies and with RMEM_REQ_AGAIN. Cookies of the dead channel are ENOENT.
 *
 * A daemon that is alive but silent is no different to the tasks: a fetch is
 * subject to the region's fault timeout and on-loss policy, and a write that is
 * not completed within the sync timeout ends with its pages dirty again.
 */

#endif /* _UAPI_LINUX_RMEM_H */
