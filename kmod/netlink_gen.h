/* SPDX-License-Identifier: GPL-2.0-only */
/* Do not edit directly, auto-generated from: */
/*	uapi/rmem.yaml */
/* YNL-GEN kernel header */

#ifndef _LINUX_RMEM_GEN_H
#define _LINUX_RMEM_GEN_H

#include <net/netlink.h>
#include <net/genetlink.h>

#include <uapi/linux/rmem_netlink.h>

extern const struct nla_policy rmem_region_get_nl_policy[RMEM_A_REGION_NAME + 1];

extern const struct nla_policy rmem_region_new_nl_policy[RMEM_A_REGION_PUSH_THRESHOLD + 1];

extern const struct nla_policy rmem_region_set_nl_policy[RMEM_A_REGION_PUSH_THRESHOLD + 1];

extern const struct nla_policy rmem_region_del_nl_policy[RMEM_A_REGION_FORCE + 1];

extern const struct nla_policy rmem_region_abort_nl_policy[RMEM_A_REGION_CONTROL_FD + 1];

/* Ops table for rmem */
extern const struct genl_ops rmem_nl_ops[5];

int rmem_nl_region_get_doit(struct sk_buff *skb, struct genl_info *info);
int rmem_nl_region_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb);
int rmem_nl_region_new_doit(struct sk_buff *skb, struct genl_info *info);
int rmem_nl_region_set_doit(struct sk_buff *skb, struct genl_info *info);
int rmem_nl_region_del_doit(struct sk_buff *skb, struct genl_info *info);
int rmem_nl_region_abort_doit(struct sk_buff *skb, struct genl_info *info);

enum {
	RMEM_NLGRP_EVENTS,
};

#endif /* _LINUX_RMEM_GEN_H */
