// SPDX-License-Identifier: GPL-2.0-only
/*
 * Layout of the uapi: most of it fails to compile (lib/abi.h); what is left is
 * whether the module in this kernel agrees.
 */
#include <sys/ioctl.h>

#include "harness.h"
#include "abi.h"
#include "miniserve.h"

struct number {
	const char *name;
	unsigned long seen, want;
};

/* For the record of a run: what numbers were in this build. */
TEST(ioctl_numbers)
{
	static const struct number n[] = {
		{ "ATTACH", RMEM_IOC_ATTACH, 0x4050e500 },
		{ "INFO", RMEM_IOC_INFO, 0xc110e501 },
		{ "PUNCH", RMEM_IOC_PUNCH, 0x4018e502 },
		{ "DROP", RMEM_IOC_DROP, 0x4018e503 },
		{ "UNSAFE", RMEM_IOC_UNSAFE, 0xc020e504 },
		{ "OVERWRITE", RMEM_IOC_OVERWRITE, 0x4018e505 },
		{ "SETUP", RMEM_IOC_SETUP, 0xc020e540 },
		{ "SERVE", RMEM_IOC_SERVE, 0x4010e541 },
		{ "FILL", RMEM_IOC_FILL, 0x4028e542 },
		{ "COMPLETE", RMEM_IOC_COMPLETE, 0xc020e543 },
		{ "WRITEOUT", RMEM_IOC_WRITEOUT, 0xc038e544 },
		{ "PREFETCH", RMEM_IOC_PREFETCH, 0xc020e545 },
		{ "PUSH", RMEM_IOC_PUSH, 0x4010e546 },
		{ "STATE", RMEM_IOC_STATE, 0x4090e547 },
		{ "RECEIVE", RMEM_IOC_RECEIVE, 0xc038e548 },
		{ "SEND", RMEM_IOC_SEND, 0xc030e549 },
		{ "LANE", RMEM_IOC_LANE, 0xc058e54e },
		{ "RUNS", RMEM_IOC_RUNS, 0xc020e54f },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(n); i++) {
		context("%s", n[i].name);
		diag("RMEM_IOC_%s 0x%lx", n[i].name, n[i].seen);
		EXPECT_EQ(n[i].seen, n[i].want);
	}
}

TEST(structs_have_no_holes)
{
	/* All bytes are of some field, so nothing unset goes to the kernel. */
	EXPECT_EQ(sizeof(struct rmem_ioc_attach), 2 * 4 + RMEM_NAME_SIZE);
	EXPECT_EQ(sizeof(struct rmem_ioc_info), 6 * 4 + 6 * 8 +
		  RMEM_NAME_SIZE + RMEM_REASON_SIZE);
	EXPECT_EQ(sizeof(struct rmem_ioc_range), 2 * 4 + 2 * 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_unsafe), 4 * 4 + 2 * 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_setup), 3 * 4 + 2 * 2 + 8 + 2 * 4);
	EXPECT_EQ(sizeof(struct rmem_ioc_region), 4 * 4);
	EXPECT_EQ(sizeof(struct rmem_ioc_fill), 2 * 4 + 4 * 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_complete), 6 * 4 + 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_writeout), 4 * 4 + 5 * 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_prefetch), 4 * 4 + 2 * 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_state), 4 * 4 + RMEM_REASON_SIZE);
	EXPECT_EQ(sizeof(struct rmem_ioc_receive), 6 * 4 + 4 * 8);
	EXPECT_EQ(sizeof(struct rmem_write_run), 2 * 8 + 2 * 4);
	EXPECT_EQ(sizeof(struct rmem_ioc_runs), 4 * 4 + 2 * 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_send), 6 * 4 + 3 * 8);
	EXPECT_EQ(sizeof(struct rmem_ioc_lane), 9 * 4 + 4 * 8 + 10 * 2);
	EXPECT_EQ(sizeof(struct rmem_request), 8 + 4 + 2 + 2 + 4 * 8 + 4 * 4);
}

TEST(module_agrees)
{
	struct rmem_ioc_setup s = {
		.size = sizeof(s),
		.ring_entries = 64,
		.uapi_major = RMEM_UAPI_MAJOR,
	};
	struct rmem_ring_header *h;
	int fd;

	if (access(CONTROL_PATH, F_OK))
		SKIP("no " CONTROL_PATH ": the module is not loaded");
	fd = ASSERT_OK(SYS(open(CONTROL_PATH, O_RDWR | O_CLOEXEC)));
	ASSERT_RET(SYS(ioctl(fd, RMEM_IOC_SETUP, &s)), 0);
	EXPECT_EQ(s.uapi_major, RMEM_UAPI_MAJOR);
	EXPECT_EQ(s.uapi_minor, RMEM_UAPI_MINOR);
	EXPECT_NE(s.generation, 0);
	h = mmap(NULL, s.ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT(h != MAP_FAILED);
	EXPECT_EQ(h->magic, RMEM_RING_MAGIC);
	EXPECT_EQ(h->entries, 64);
	EXPECT_EQ(h->entry_bytes, sizeof(struct rmem_request));
	EXPECT_EQ(h->head, 0);
	EXPECT_EQ(h->tail, 0);
	EXPECT_GE(h->entries_offset, sizeof(*h));
	EXPECT_EQ(h->entries_offset % 64, 0);
	EXPECT_LE(h->entries_offset + 64 * sizeof(struct rmem_request),
		  s.ring_bytes);
}
