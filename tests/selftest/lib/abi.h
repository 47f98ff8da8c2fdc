/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The binary interface in numbers, written down a second time by hand. What
 * fails to compile here would break every program built before: the layout may
 * grow at the end of a struct (by a deliberate change of this file), never
 * change. Also compiled for 32 bits.
 */
#ifndef SELFTEST_ABI_H
#define SELFTEST_ABI_H

#include <linux/rmem.h>
#include <linux/rmem_netlink.h>

#define SIZE(type, n) \
	_Static_assert(sizeof(struct type) == (n), "size of " #type)
#define FIELD(type, field, at, n)					\
	_Static_assert(__builtin_offsetof(struct type, field) == (at) &&	\
		       sizeof(((struct type *)0)->field) == (n),		\
		       #type "." #field)
#define NUMBER(name, n) _Static_assert((name) == (n), #name)

SIZE(rmem_ioc_attach, 80);
FIELD(rmem_ioc_attach, size, 0, 4);
FIELD(rmem_ioc_attach, flags, 4, 4);
FIELD(rmem_ioc_attach, name, 8, 72);

SIZE(rmem_ioc_info, 272);
FIELD(rmem_ioc_info, size, 0, 4);
FIELD(rmem_ioc_info, flags, 4, 4);
FIELD(rmem_ioc_info, region_id, 8, 4);
FIELD(rmem_ioc_info, region_flags, 12, 4);
FIELD(rmem_ioc_info, size_bytes, 16, 8);
FIELD(rmem_ioc_info, chunk_bytes, 24, 4);
FIELD(rmem_ioc_info, state, 28, 4);
FIELD(rmem_ioc_info, resident_bytes, 32, 8);
FIELD(rmem_ioc_info, dirty_bytes, 40, 8);
FIELD(rmem_ioc_info, writeback_bytes, 48, 8);
FIELD(rmem_ioc_info, fetched_bytes, 56, 8);
FIELD(rmem_ioc_info, pushed_bytes, 64, 8);
FIELD(rmem_ioc_info, name, 72, 72);
FIELD(rmem_ioc_info, reason, 144, 128);

SIZE(rmem_ioc_range, 24);
FIELD(rmem_ioc_range, size, 0, 4);
FIELD(rmem_ioc_range, flags, 4, 4);
FIELD(rmem_ioc_range, offset, 8, 8);
FIELD(rmem_ioc_range, length, 16, 8);
SIZE(rmem_ioc_unsafe, 32);
FIELD(rmem_ioc_unsafe, size, 0, 4);
FIELD(rmem_ioc_unsafe, flags, 4, 4);
FIELD(rmem_ioc_unsafe, offset, 8, 8);
FIELD(rmem_ioc_unsafe, runs, 16, 8);
FIELD(rmem_ioc_unsafe, run_count, 24, 4);
FIELD(rmem_ioc_unsafe, __reserved, 28, 4);

SIZE(rmem_ioc_setup, 32);
FIELD(rmem_ioc_setup, size, 0, 4);
FIELD(rmem_ioc_setup, flags, 4, 4);
FIELD(rmem_ioc_setup, ring_entries, 8, 4);
FIELD(rmem_ioc_setup, uapi_major, 12, 2);
FIELD(rmem_ioc_setup, uapi_minor, 14, 2);
FIELD(rmem_ioc_setup, features, 16, 8);
FIELD(rmem_ioc_setup, ring_bytes, 24, 4);
FIELD(rmem_ioc_setup, generation, 28, 4);

SIZE(rmem_ioc_region, 16);
FIELD(rmem_ioc_region, size, 0, 4);
FIELD(rmem_ioc_region, flags, 4, 4);
FIELD(rmem_ioc_region, region_id, 8, 4);
FIELD(rmem_ioc_region, __reserved, 12, 4);

SIZE(rmem_ioc_fill, 40);
FIELD(rmem_ioc_fill, size, 0, 4);
FIELD(rmem_ioc_fill, flags, 4, 4);
FIELD(rmem_ioc_fill, cookie, 8, 8);
FIELD(rmem_ioc_fill, offset, 16, 8);
FIELD(rmem_ioc_fill, length, 24, 8);
FIELD(rmem_ioc_fill, addr, 32, 8);

SIZE(rmem_ioc_receive, 56);
FIELD(rmem_ioc_receive, size, 0, 4);
FIELD(rmem_ioc_receive, flags, 4, 4);
FIELD(rmem_ioc_receive, cookie, 8, 8);
FIELD(rmem_ioc_receive, offset, 16, 8);
FIELD(rmem_ioc_receive, length, 24, 8);
FIELD(rmem_ioc_receive, fd, 32, 4);
FIELD(rmem_ioc_receive, checksum, 36, 4);
FIELD(rmem_ioc_receive, received, 40, 8);
FIELD(rmem_ioc_receive, error, 48, 4);
FIELD(rmem_ioc_receive, __reserved, 52, 4);

SIZE(rmem_ioc_lane, 88);
FIELD(rmem_ioc_lane, size, 0, 4);
FIELD(rmem_ioc_lane, flags, 4, 4);
FIELD(rmem_ioc_lane, region_id, 8, 4);
FIELD(rmem_ioc_lane, fd, 12, 4);
FIELD(rmem_ioc_lane, lane, 16, 4);
FIELD(rmem_ioc_lane, message_bytes, 20, 4);
FIELD(rmem_ioc_lane, message, 24, 8);
FIELD(rmem_ioc_lane, cookie_at, 32, 2);
FIELD(rmem_ioc_lane, offset_at, 34, 2);
FIELD(rmem_ioc_lane, length_at, 36, 2);
FIELD(rmem_ioc_lane, checksum_at, 38, 2);
FIELD(rmem_ioc_lane, answer, 40, 8);
FIELD(rmem_ioc_lane, answer_mask, 48, 8);
FIELD(rmem_ioc_lane, answer_bytes, 56, 4);
FIELD(rmem_ioc_lane, answer_cookie_at, 60, 2);
FIELD(rmem_ioc_lane, answer_offset_at, 62, 2);
FIELD(rmem_ioc_lane, answer_length_at, 64, 2);
FIELD(rmem_ioc_lane, answer_payload_at, 66, 2);
FIELD(rmem_ioc_lane, answer_sum_at, 68, 2);
FIELD(rmem_ioc_lane, answer_checksum_at, 70, 2);
FIELD(rmem_ioc_lane, taken, 72, 8);

SIZE(rmem_ioc_complete, 32);
FIELD(rmem_ioc_complete, size, 0, 4);
FIELD(rmem_ioc_complete, flags, 4, 4);
FIELD(rmem_ioc_complete, error, 8, 4);
FIELD(rmem_ioc_complete, count, 12, 4);
FIELD(rmem_ioc_complete, cookies, 16, 8);
FIELD(rmem_ioc_complete, unknown, 24, 4);
FIELD(rmem_ioc_complete, __reserved, 28, 4);

SIZE(rmem_run, 16);
FIELD(rmem_run, offset, 0, 8);
FIELD(rmem_run, length, 8, 8);

SIZE(rmem_ioc_writeout, 56);
FIELD(rmem_ioc_writeout, size, 0, 4);
FIELD(rmem_ioc_writeout, flags, 4, 4);
FIELD(rmem_ioc_writeout, cookie, 8, 8);
FIELD(rmem_ioc_writeout, addr, 16, 8);
FIELD(rmem_ioc_writeout, addr_bytes, 24, 8);
FIELD(rmem_ioc_writeout, runs, 32, 8);
FIELD(rmem_ioc_writeout, run_count, 40, 4);
FIELD(rmem_ioc_writeout, __reserved, 44, 4);
FIELD(rmem_ioc_writeout, bytes, 48, 8);

SIZE(rmem_write_run, 24);
FIELD(rmem_write_run, offset, 0, 8);
FIELD(rmem_write_run, length, 8, 8);
FIELD(rmem_write_run, flags, 16, 4);
FIELD(rmem_write_run, __reserved, 20, 4);

SIZE(rmem_ioc_runs, 32);
FIELD(rmem_ioc_runs, size, 0, 4);
FIELD(rmem_ioc_runs, flags, 4, 4);
FIELD(rmem_ioc_runs, cookie, 8, 8);
FIELD(rmem_ioc_runs, runs, 16, 8);
FIELD(rmem_ioc_runs, run_count, 24, 4);
FIELD(rmem_ioc_runs, __reserved, 28, 4);

SIZE(rmem_ioc_send, 48);
FIELD(rmem_ioc_send, size, 0, 4);
FIELD(rmem_ioc_send, flags, 4, 4);
FIELD(rmem_ioc_send, region_id, 8, 4);
FIELD(rmem_ioc_send, fd, 12, 4);
FIELD(rmem_ioc_send, offset, 16, 8);
FIELD(rmem_ioc_send, length, 24, 8);
FIELD(rmem_ioc_send, sent, 32, 8);
FIELD(rmem_ioc_send, error, 40, 4);
FIELD(rmem_ioc_send, __reserved, 44, 4);

SIZE(rmem_ioc_prefetch, 32);
FIELD(rmem_ioc_prefetch, size, 0, 4);
FIELD(rmem_ioc_prefetch, flags, 4, 4);
FIELD(rmem_ioc_prefetch, region_id, 8, 4);
FIELD(rmem_ioc_prefetch, queued, 12, 4);
FIELD(rmem_ioc_prefetch, offset, 16, 8);
FIELD(rmem_ioc_prefetch, length, 24, 8);

SIZE(rmem_ioc_state, 144);
FIELD(rmem_ioc_state, size, 0, 4);
FIELD(rmem_ioc_state, flags, 4, 4);
FIELD(rmem_ioc_state, region_id, 8, 4);
FIELD(rmem_ioc_state, state, 12, 4);
FIELD(rmem_ioc_state, reason, 16, 128);

SIZE(rmem_ring_header, 192);
FIELD(rmem_ring_header, magic, 0, 4);
FIELD(rmem_ring_header, entries, 4, 4);
FIELD(rmem_ring_header, entry_bytes, 8, 4);
FIELD(rmem_ring_header, entries_offset, 12, 4);
FIELD(rmem_ring_header, __reserved0, 16, 48);
FIELD(rmem_ring_header, head, 64, 4);
FIELD(rmem_ring_header, tail, 128, 4);

SIZE(rmem_request, 64);
FIELD(rmem_request, cookie, 0, 8);
FIELD(rmem_request, region_id, 8, 4);
FIELD(rmem_request, op, 12, 1);
FIELD(rmem_request, flags, 13, 1);
FIELD(rmem_request, __reserved, 14, 2);
FIELD(rmem_request, offset, 16, 8);
FIELD(rmem_request, length, 24, 8);
FIELD(rmem_request, demand_offset, 32, 8);
FIELD(rmem_request, payload, 40, 8);
FIELD(rmem_request, tid, 48, 4);
FIELD(rmem_request, lane, 52, 4);
FIELD(rmem_request, __reserved1, 56, 8);

NUMBER(RMEM_IOC_ATTACH, 0x4050e500);
NUMBER(RMEM_IOC_INFO, 0xc110e501);
NUMBER(RMEM_IOC_PUNCH, 0x4018e502);
NUMBER(RMEM_IOC_UNSAFE, 0xc020e504);
NUMBER(RMEM_IOC_DROP, 0x4018e503);
NUMBER(RMEM_IOC_OVERWRITE, 0x4018e505);
NUMBER(RMEM_IOC_SETUP, 0xc020e540);
NUMBER(RMEM_IOC_SERVE, 0x4010e541);
NUMBER(RMEM_IOC_FILL, 0x4028e542);
NUMBER(RMEM_IOC_COMPLETE, 0xc020e543);
NUMBER(RMEM_IOC_WRITEOUT, 0xc038e544);
NUMBER(RMEM_IOC_PREFETCH, 0xc020e545);
NUMBER(RMEM_IOC_PUSH, 0x4010e546);
NUMBER(RMEM_IOC_STATE, 0x4090e547);
NUMBER(RMEM_IOC_RECEIVE, 0xc038e548);
NUMBER(RMEM_IOC_SEND, 0xc030e549);
NUMBER(RMEM_IOC_LANE, 0xc058e54e);
NUMBER(RMEM_IOC_RUNS, 0xc020e54f);

NUMBER(RMEM_UAPI_MAJOR, 1);
NUMBER(RMEM_CHUNK_MIN, 4096);
NUMBER(RMEM_CHUNK_MAX, 2097152);
NUMBER(RMEM_RING_MAGIC, 0x676e6972);
NUMBER(RMEM_STATE_ACTIVE, 0);
NUMBER(RMEM_STATE_DEGRADED, 1);
NUMBER(RMEM_STATE_QUIESCED, 2);
NUMBER(RMEM_STATE_FAILED, 3);
NUMBER(RMEM_ON_LOSS_WAIT, 0);
NUMBER(RMEM_ON_LOSS_ERROR, 1);
NUMBER(RMEM_ON_LOSS_KILL, 2);
NUMBER(RMEM_REGION_READ_ONLY, 1);
NUMBER(RMEM_FILL_MARK, 1);
NUMBER(RMEM_FILL_ZERO, 2);
NUMBER(RMEM_RECEIVE_CHECKSUM, 4);
NUMBER(RMEM_PREFETCH_MAKE_ROOM, 1);
NUMBER(RMEM_RUN_ZERO, 1);
NUMBER(RMEM_FEATURE_RECEIVE, 1);
NUMBER(RMEM_FEATURE_SEND, 2);
NUMBER(RMEM_FEATURE_LANE, 4);
NUMBER(RMEM_LANE_MESSAGE_MAX, 256);
NUMBER(RMEM_LANE_TAKE, 1);
NUMBER(RMEM_LANE_DAMAGED, 2);
NUMBER(RMEM_OP_FETCH, 1);
NUMBER(RMEM_OP_WRITE, 2);
NUMBER(RMEM_OP_ZERO, 3);
NUMBER(RMEM_OP_HIT, 4);
NUMBER(RMEM_OP_MISS, 5);
NUMBER(RMEM_OP_LANE, 6);
NUMBER(RMEM_REQ_PREFETCH, 1);
NUMBER(RMEM_REQ_SYNC, 2);
NUMBER(RMEM_REQ_AGAIN, 4);
NUMBER(RMEM_REQ_JOINED, 8);
NUMBER(RMEM_REQ_LAST, 16);

NUMBER(RMEM_NAME_MAX, 64);
NUMBER(RMEM_SOURCE_MAX, 4095);
NUMBER(RMEM_INSTANCE_MAX, 64);
NUMBER(RMEM_BLOB_MAX, 4096);
NUMBER(RMEM_WRITER_SIZE, 16);
NUMBER(RMEM_CMD_REGION_GET, 1);
NUMBER(RMEM_CMD_REGION_NEW, 2);
NUMBER(RMEM_CMD_REGION_SET, 3);
NUMBER(RMEM_CMD_REGION_DEL, 4);
NUMBER(RMEM_CMD_REGION_EVENT, 5);
NUMBER(RMEM_EVENT_NEW, 1);
NUMBER(RMEM_EVENT_DEL, 2);
NUMBER(RMEM_EVENT_STATE, 3);
NUMBER(RMEM_EVENT_TIMEOUT, 4);
NUMBER(RMEM_A_REGION_ID, 1);
NUMBER(RMEM_A_REGION_NAME, 2);
NUMBER(RMEM_A_REGION_SIZE, 3);
NUMBER(RMEM_A_REGION_CHUNK, 4);
NUMBER(RMEM_A_REGION_FOLIO_ORDER, 5);
NUMBER(RMEM_A_REGION_FLAGS, 6);
NUMBER(RMEM_A_REGION_UID, 7);
NUMBER(RMEM_A_REGION_GID, 8);
NUMBER(RMEM_A_REGION_MODE, 9);
NUMBER(RMEM_A_REGION_FAULT_TIMEOUT_MS, 10);
NUMBER(RMEM_A_REGION_SYNC_TIMEOUT_MS, 11);
NUMBER(RMEM_A_REGION_ON_LOSS, 12);
NUMBER(RMEM_A_REGION_SOURCE, 13);
NUMBER(RMEM_A_REGION_INSTANCE, 14);
NUMBER(RMEM_A_REGION_BLOB, 15);
NUMBER(RMEM_A_REGION_WRITER, 16);
NUMBER(RMEM_A_REGION_CONTROL_FD, 17);
NUMBER(RMEM_A_REGION_STATE, 18);
NUMBER(RMEM_A_REGION_REASON, 19);
NUMBER(RMEM_A_REGION_USERS, 20);
NUMBER(RMEM_A_REGION_DAEMON_PID, 21);
NUMBER(RMEM_A_REGION_WAITING, 22);
NUMBER(RMEM_A_REGION_RESIDENT_BYTES, 23);
NUMBER(RMEM_A_REGION_DIRTY_BYTES, 24);
NUMBER(RMEM_A_REGION_WRITEBACK_BYTES, 25);
NUMBER(RMEM_A_REGION_FETCHED_BYTES, 26);
NUMBER(RMEM_A_REGION_PUSHED_BYTES, 27);
NUMBER(RMEM_A_REGION_FAULTS_DEMAND, 28);
NUMBER(RMEM_A_REGION_FAULTS_RESIDENT, 29);
NUMBER(RMEM_A_REGION_FAULTS_WRITE_PROTECT, 30);
NUMBER(RMEM_A_REGION_ERRORS, 31);
NUMBER(RMEM_A_REGION_EVENT, 32);
NUMBER(RMEM_A_REGION_FORCE, 33);
NUMBER(RMEM_A_REGION_LOST_BYTES, 35);
NUMBER(RMEM_A_REGION_RESIDENT_LIMIT, 36);
NUMBER(RMEM_A_REGION_DIRTY_LIMIT, 37);
NUMBER(RMEM_A_REGION_MODULE_BYTES, 38);
NUMBER(RMEM_A_REGION_PUSH_THRESHOLD, 39);

#undef SIZE
#undef FIELD
#undef NUMBER

#endif /* SELFTEST_ABI_H */
