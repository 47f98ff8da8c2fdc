// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults on a mapped region.
 *
 * A miss asks for the chunk and waits without mmap_lock or any folio. Once the
 * lock is dropped a fault can say nothing but VM_FAULT_RETRY; how the fetch
 * ended, the retry finds out: the page is there, or the failed fetch still is,
 * or the region's state says it.
 */
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "internal.h"
#include "trace.h"

/* @own: the access is the task's own, not one to another's memory */
static void fault_kill(struct rmem_region *region, bool own, int error)
{
	if (error == -ETIME && own && READ_ONCE(region->on_loss) == RMEM_ON_LOSS_KILL)
		send_sig(SIGKILL, current, 1);
}

static vm_fault_t fault_error(struct rmem_region *region, struct vm_fault *vmf, int error)
{
	trace_rmem_fault_error(region, vmf->pgoff, error);
	if (error == -ENOMEM)
		return VM_FAULT_OOM;
	fault_kill(region, current->mm == vmf->vma->vm_mm, error);
	return VM_FAULT_SIGBUS;
}

/* Would reading the user's buffer wait for a fetch that its reader is to answer? */
bool rmem_fault_would_recurse(const void __user *addr, u64 length)
{
	unsigned long start = (unsigned long)addr, end = start + length;
	struct vm_area_struct *vma;
	bool found = false;

	if (mmap_read_lock_killable(current->mm))
		return true;
	for (vma = find_vma(current->mm, start); vma && vma->vm_start < end && !found;
	     vma = find_vma(current->mm, vma->vm_end))
		found = vma->vm_ops == &rmem_vm_ops;
	mmap_read_unlock(current->mm);
	return found;
}

/* The resident page, locked, or 0 if there is none. */
static vm_fault_t fault_resident(struct rmem_region *region, struct vm_fault *vmf)
{
	struct folio *folio = rmem_pages_get(region, vmf->pgoff);

	if (!folio)
		return 0;
	/* held only for short work, never while somebody waits for a daemon */
	folio_lock(folio);
	if (folio->mapping != region->inode->i_mapping || !folio_contains(folio, vmf->pgoff)) {
		folio_unlock(folio);
		folio_put(folio);
		return 0;
	}
	rmem_pages_hit(region, folio, vmf->pgoff);
	vmf->page = folio_file_page(folio, vmf->pgoff);
	return VM_FAULT_LOCKED;
}

/* What a fault has to wait for: a fetch, or else room. */
struct fault_wait {
	struct rmem_wait fetch;		/* without a request: for room */
	enum rmem_room room;
};

static int fault_wait(struct rmem_region *region, struct fault_wait *wait, bool retries,
		      long timeout)
{
	int err;

	if (!wait->fetch.req)
		return rmem_room_wait(region, wait->room, 1, retries, timeout);
	err = rmem_fetch_wait(&wait->fetch, timeout);
	rmem_request_put(wait->fetch.req);
	return err;
}

/*
 * Looks at what the fault needs.
 *
 * Return: 0 and @wait to wait for, or what the fault ends with.
 */
static vm_fault_t fault_look(struct rmem_region *region, struct vm_fault *vmf, bool retries,
			     struct fault_wait *wait)
{
	bool store = vmf->flags & FAULT_FLAG_WRITE && vmf->vma->vm_flags & VM_SHARED;
	vm_fault_t ret;
	int err;

	do {
		if (vmf->pgoff >= region->nr_pages)
			return VM_FAULT_SIGBUS;
		/* here and not in page_mkwrite, which cannot wait without mmap_lock */
		wait->room = RMEM_ROOM_DIRTY;
		err = -EDQUOT;
		if (store && rmem_dirty_is_full(region, vmf->pgoff))
			break;
		ret = fault_resident(region, vmf);
		if (ret)
			return ret;
		wait->room = RMEM_ROOM_RESIDENT;
		/* who cannot drop mmap_lock does not ask: sockets are locked outside of it */
		err = rmem_fetch_join(region, vmf->pgoff, retries, retries, &wait->fetch);
	} while (err == -EAGAIN);

	if (!err) {
		atomic64_inc(&region->faults_demand);
		trace_rmem_fault(region, vmf->pgoff, wait->fetch.req);
		return 0;
	}
	wait->fetch.req = NULL;
	if (err == -EDQUOT)
		err = rmem_room_refused(region);
	return err ? fault_error(region, vmf, err) : 0;
}

static vm_fault_t rmem_fault(struct vm_fault *vmf)
{
	struct file *file = vmf->vma->vm_file;
	struct rmem_region *region = file->private_data;
	bool retry = vmf->flags & FAULT_FLAG_ALLOW_RETRY;
	bool nowait = retry && (vmf->flags & FAULT_FLAG_RETRY_NOWAIT);
	bool own = current->mm == vmf->vma->vm_mm;
	vm_fault_t major = 0, ret;
	struct fault_wait wait;
	int err;

	for (;;) {
		ret = fault_look(region, vmf, retry && !nowait, &wait);
		if (ret & VM_FAULT_LOCKED && !major && !(vmf->flags & FAULT_FLAG_TRIED))
			atomic64_inc(&region->faults_resident);
		if (ret)
			return ret & VM_FAULT_ERROR ? ret : ret | major;
		major = VM_FAULT_MAJOR;
		if (retry)
			break;

		/*
		 * ptrace and the like cannot repeat the access, so they wait
		 * with mmap_lock; not for longer than the region's timeout.
		 */
		err = fault_wait(region, &wait, false,
				 msecs_to_jiffies(READ_ONCE(region->fault_timeout_ms)));
		if (err)
			return fault_error(region, vmf, err);
	}

	if (nowait) {
		/* the caller keeps the lock, and comes back by itself */
		if (wait.fetch.req)
			rmem_request_put(wait.fetch.req);
		return VM_FAULT_RETRY;
	}
	/* the file keeps the region; without the lock the VMA may go away */
	get_file(file);
	release_fault_lock(vmf);
	err = fault_wait(region, &wait, true, MAX_SCHEDULE_TIMEOUT);
	fault_kill(region, own, err);
	fput(file);
	return VM_FAULT_MAJOR | VM_FAULT_RETRY;
}

/*
 * First write to a clean page. Writeback under way does not stop it: what is
 * being copied out counts as written before only if it is, and the page is
 * dirty again and will be pushed once more (rmem_pages_writeout()).
 *
 * Beyond the dirty limit the page is unmapped, so that the access is repeated as
 * a write to an absent page, and waits in rmem_fault().
 */
static vm_fault_t rmem_page_mkwrite(struct vm_fault *vmf)
{
	struct rmem_region *region = vmf->vma->vm_file->private_data;
	struct address_space *mapping = region->inode->i_mapping;
	struct folio *folio = page_folio(vmf->page);
	vm_fault_t ret = VM_FAULT_LOCKED;
	int err;

	folio_lock(folio);
	if (folio->mapping != mapping || vmf->pgoff >= region->nr_pages)
		ret = VM_FAULT_NOPAGE;
	else if (READ_ONCE(region->dead))
		ret = VM_FAULT_SIGBUS;
	if (ret != VM_FAULT_LOCKED)
		goto unlock;
	err = rmem_dirty_admit(region, vmf->pgoff, 1);
	if (err) {
		ret = err == -EDQUOT ? VM_FAULT_NOPAGE : VM_FAULT_OOM;
		goto unlock;
	}
	folio_mark_dirty(folio);
	rmem_protect_ahead(region, vmf, folio);
	atomic64_inc(&region->faults_write_protect);
	trace_rmem_mkwrite(region, vmf->pgoff, 0);
	return ret;

unlock:
	folio_unlock(folio);
	if (ret == VM_FAULT_NOPAGE)
		unmap_mapping_pages(mapping, vmf->pgoff, 1, false);
	return ret;
}

/*
 * Maps the neighbours with a page that is there. Where pages are fetched one by one, those of
 * one that was not are left to their own faults: most are not there either, or mapped, and to
 * look costs as much as the fault that it might save, before the wait and once more after it.
 */
static vm_fault_t rmem_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
	struct rmem_region *region = vmf->vma->vm_file->private_data;

	if (!region->chunk_order &&
	    (vmf->flags & FAULT_FLAG_TRIED || !rmem_pages_hold(region, vmf->pgoff)))
		return 0;
	return filemap_map_pages(vmf, start, end);
}

const struct vm_operations_struct rmem_vm_ops = {
	.fault		= rmem_fault,
	.map_pages	= rmem_map_pages,
	.page_mkwrite	= rmem_page_mkwrite,
};
