// SPDX-License-Identifier: GPL-2.0-only
/* Do not edit directly, auto-generated from: */
/*	uapi/rmem.yaml */
/* YNL-GEN kernel source */

#include <net/netlink.h>
#include <net/genetlink.h>

#include "netlink_gen.h"

#include <uapi/linux/rmem_netlink.h>

/* RMEM_CMD_REGION_GET - do */
const struct nla_policy rmem_region_get_nl_policy[RMEM_A_REGION_NAME + 1] = {
	[RMEM_A_REGION_ID] = { .type = NLA_U32, },
	[RMEM_A_REGION_NAME] = { .type = NLA_NUL_STRING, .len = RMEM_NAME_MAX, },
};

/* RMEM_CMD_REGION_NEW - do */
const struct nla_policy rmem_region_new_nl_policy[RMEM_A_REGION_PUSH_THRESHOLD + 1] = {
	[RMEM_A_REGION_CONTROL_FD] = { .type = NLA_U32, },
	[RMEM_A_REGION_NAME] = { .type = NLA_NUL_STRING, .len = RMEM_NAME_MAX, },
	[RMEM_A_REGION_SIZE] = { .type = NLA_U64, },
	[RMEM_A_REGION_CHUNK] = { .type = NLA_U32, },
	[RMEM_A_REGION_FOLIO_ORDER] = { .type = NLA_U8, },
	[RMEM_A_REGION_FLAGS] = { .type = NLA_U32, },
	[RMEM_A_REGION_UID] = { .type = NLA_U32, },
	[RMEM_A_REGION_GID] = { .type = NLA_U32, },
	[RMEM_A_REGION_MODE] = { .type = NLA_U32, },
	[RMEM_A_REGION_FAULT_TIMEOUT_MS] = { .type = NLA_U32, },
	[RMEM_A_REGION_SYNC_TIMEOUT_MS] = { .type = NLA_U32, },
	[RMEM_A_REGION_ON_LOSS] = { .type = NLA_U32, },
	[RMEM_A_REGION_SOURCE] = { .type = NLA_NUL_STRING, .len = RMEM_SOURCE_MAX, },
	[RMEM_A_REGION_INSTANCE] = { .type = NLA_NUL_STRING, .len = RMEM_INSTANCE_MAX, },
	[RMEM_A_REGION_BLOB] = { .type = NLA_BINARY, },
	[RMEM_A_REGION_RESIDENT_LIMIT] = { .type = NLA_U64, },
	[RMEM_A_REGION_DIRTY_LIMIT] = { .type = NLA_U64, },
	[RMEM_A_REGION_PUSH_THRESHOLD] = { .type = NLA_U64, },
};

/* RMEM_CMD_REGION_SET - do */
const struct nla_policy rmem_region_set_nl_policy[RMEM_A_REGION_PUSH_THRESHOLD + 1] = {
	[RMEM_A_REGION_CONTROL_FD] = { .type = NLA_U32, },
	[RMEM_A_REGION_ID] = { .type = NLA_U32, },
	[RMEM_A_REGION_FAULT_TIMEOUT_MS] = { .type = NLA_U32, },
	[RMEM_A_REGION_SYNC_TIMEOUT_MS] = { .type = NLA_U32, },
	[RMEM_A_REGION_ON_LOSS] = { .type = NLA_U32, },
	[RMEM_A_REGION_BLOB] = { .type = NLA_BINARY, },
	[RMEM_A_REGION_RESIDENT_LIMIT] = { .type = NLA_U64, },
	[RMEM_A_REGION_DIRTY_LIMIT] = { .type = NLA_U64, },
	[RMEM_A_REGION_PUSH_THRESHOLD] = { .type = NLA_U64, },
};

/* RMEM_CMD_REGION_DEL - do */
const struct nla_policy rmem_region_del_nl_policy[RMEM_A_REGION_FORCE + 1] = {
	[RMEM_A_REGION_CONTROL_FD] = { .type = NLA_U32, },
	[RMEM_A_REGION_ID] = { .type = NLA_U32, },
	[RMEM_A_REGION_FORCE] = { .type = NLA_FLAG, },
};

/* RMEM_CMD_REGION_ABORT - do */
const struct nla_policy rmem_region_abort_nl_policy[RMEM_A_REGION_CONTROL_FD + 1] = {
	[RMEM_A_REGION_CONTROL_FD] = { .type = NLA_U32, },
	[RMEM_A_REGION_ID] = { .type = NLA_U32, },
};

/* Ops table for rmem */
const struct genl_ops rmem_nl_ops[5] = {
	{
		.cmd		= RMEM_CMD_REGION_GET,
		.doit		= rmem_nl_region_get_doit,
		.dumpit		= rmem_nl_region_get_dumpit,
		.policy		= rmem_region_get_nl_policy,
		.maxattr	= RMEM_A_REGION_NAME,
	},
	{
		.cmd		= RMEM_CMD_REGION_NEW,
		.doit		= rmem_nl_region_new_doit,
		.policy		= rmem_region_new_nl_policy,
		.maxattr	= RMEM_A_REGION_PUSH_THRESHOLD,
	},
	{
		.cmd		= RMEM_CMD_REGION_SET,
		.doit		= rmem_nl_region_set_doit,
		.policy		= rmem_region_set_nl_policy,
		.maxattr	= RMEM_A_REGION_PUSH_THRESHOLD,
	},
	{
		.cmd		= RMEM_CMD_REGION_DEL,
		.doit		= rmem_nl_region_del_doit,
		.policy		= rmem_region_del_nl_policy,
		.maxattr	= RMEM_A_REGION_FORCE,
	},
	{
		.cmd		= RMEM_CMD_REGION_ABORT,
		.doit		= rmem_nl_region_abort_doit,
		.policy		= rmem_region_abort_nl_policy,
		.maxattr	= RMEM_A_REGION_CONTROL_FD,
	},
};
