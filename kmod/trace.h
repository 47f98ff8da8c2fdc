/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM rmem

#if !defined(_RMEM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _RMEM_TRACE_H

#include <linux/tracepoint.h>

#include "internal.h"

DECLARE_EVENT_CLASS(rmem_request,
	TP_PROTO(struct rmem_req *req, int error),
	TP_ARGS(req, error),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, id)
		__field(u8, op)
		__field(int, error)
		__field(u64, offset)
		__field(u64, length)
	),
	TP_fast_assign(
		__entry->region = req->region->id;
		__entry->id = req->id;
		__entry->op = req->op;
		__entry->error = error;
		__entry->offset = req->offset;
		__entry->length = req->length;
	),
	TP_printk("region=%u id=%u op=%s offset=%llu length=%llu error=%d",
		  __entry->region, __entry->id,
		  __print_symbolic(__entry->op, { RMEM_OP_FETCH, "fetch" },
				   { RMEM_OP_WRITE, "write" }, { RMEM_OP_ZERO, "zero" }),
		  __entry->offset, __entry->length, __entry->error)
);

#define rmem_request_event(name)			\
DEFINE_EVENT(rmem_request, name,			\
	TP_PROTO(struct rmem_req *req, int error),	\
	TP_ARGS(req, error))

rmem_request_event(rmem_request_new);
rmem_request_event(rmem_request_sent);
rmem_request_event(rmem_request_asked);
rmem_request_event(rmem_request_done);

TRACE_EVENT(rmem_fault,
	TP_PROTO(struct rmem_region *region, pgoff_t index, struct rmem_req *req),
	TP_ARGS(region, index, req),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, id)
		__field(pgoff_t, index)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->id = req->id;
		__entry->index = index;
	),
	TP_printk("region=%u index=%lu id=%u", __entry->region, __entry->index, __entry->id)
);

DECLARE_EVENT_CLASS(rmem_page,
	TP_PROTO(struct rmem_region *region, pgoff_t index, int error),
	TP_ARGS(region, index, error),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(pgoff_t, index)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->index = index;
		__entry->error = error;
	),
	TP_printk("region=%u index=%lu error=%d", __entry->region, __entry->index,
		  __entry->error)
);

#define rmem_page_event(name)						\
DEFINE_EVENT(rmem_page, name,						\
	TP_PROTO(struct rmem_region *region, pgoff_t index, int error),	\
	TP_ARGS(region, index, error))

rmem_page_event(rmem_fault_error);
rmem_page_event(rmem_mkwrite);

TRACE_EVENT(rmem_sync,
	TP_PROTO(struct rmem_region *region, loff_t start, loff_t end, int error),
	TP_ARGS(region, start, end, error),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(loff_t, start)
		__field(loff_t, end)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->start = start;
		__entry->end = end;
		__entry->error = error;
	),
	TP_printk("region=%u start=%lld end=%lld error=%d", __entry->region, __entry->start,
		  __entry->end, __entry->error)
);

TRACE_EVENT(rmem_evict,
	TP_PROTO(struct rmem_region *region, unsigned long gone, unsigned long lacks),
	TP_ARGS(region, gone, lacks),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(unsigned long, gone)
		__field(unsigned long, lacks)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->gone = gone;
		__entry->lacks = lacks;
	),
	TP_printk("region=%u pages=%lu lacks=%lu", __entry->region, __entry->gone,
		  __entry->lacks)
);

TRACE_EVENT(rmem_state,
	TP_PROTO(struct rmem_region *region, u32 state),
	TP_ARGS(region, state),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u32, state)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->state = state;
	),
	TP_printk("region=%u state=%u", __entry->region, __entry->state)
);

#endif /* _RMEM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
