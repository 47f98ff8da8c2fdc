// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regions come and go; what is in use or not durable stays, and what is gone
 * leaves nothing behind.
 */
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define SIZE (4 * CHUNK)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

/*
 * In use
 */

TEST(del_while_open)
{
	struct region_conf conf = plain;
	__u32 id;
	int fe, fd;

	ASSERT(rmemfs_mount());
	for (fe = 0; fe < FE_COUNT; fe++) {
		context("%s", frontend_names[fe]);
		conf.name = region_fresh_name();
		ASSERT_RET(region_new(&conf, &id), 0);
		fd = ASSERT_OK(frontend_open(fe, conf.name, O_RDONLY));
		EXPECT_EQ(STAT(id, users), 1);
		EXPECT_RET(region_del(id), -EBUSY);
		/* It is as good as before. */
		EXPECT_RET(SYS(lseek(fd, 0, SEEK_END)), SIZE);
		close(fd);
		EXPECT_EQ(STAT(id, users), 0);
		EXPECT_RET(region_del(id), 0);
		EXPECT_RET(region_del(id), -ENOENT);
	}
}

TEST(del_while_mapped)
{
	struct region_conf conf = plain;
	__u32 id;
	int fe, fd;
	void *p;

	ASSERT(rmemfs_mount());
	for (fe = 0; fe < FE_COUNT; fe++) {
		context("%s", frontend_names[fe]);
		conf.name = region_fresh_name();
		ASSERT_RET(region_new(&conf, &id), 0);
		fd = ASSERT_OK(frontend_open(fe, conf.name, O_RDONLY));
		p = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
		ASSERT(p != MAP_FAILED);
		close(fd);
		EXPECT_RET(region_del(id), -EBUSY);
		munmap(p, SIZE);
		EXPECT_RET(region_del(id), 0);
	}
}

TEST(del_while_dirty)
{
	struct fix f;

	ASSERT_RET(fix_start(&f, &plain), 0);
	ASSERT_RET(fix_quiet(&f), 0);
	stamp(f.map, 1);
	munmap(f.map, SIZE);
	close(f.fd);
	EXPECT_RET(region_del(f.id), -EBUSY);
	/* Under way is not durable yet. */
	MINI_SET(f.m, write_mode, MINI_HOLD);
	EXPECT_RET(fix_push(&f), 0);
	ASSERT_SOON(MINI_GET(f.m, held) == 1);
	EXPECT_RET(region_del(f.id), -EBUSY);
	MINI_SET(f.m, write_mode, MINI_OK);
	/* Its bytes are counted as durable a little before the write is over. */
	EXPECT_SOON(region_del(f.id) == 0);
	EXPECT(stamped(f.store, 1));
}

/*
 * By force what is not durable is forgotten, and counted; for those who use the
 * region it ends at once, for the daemon, too.
 */
TEST(del_by_force)
{
	struct region_conf conf = plain;
	__u64 lost;
	struct fix f;
	char byte;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		ASSERT_RET(fix_start(&f, &conf), 0);
		ASSERT_RET(fix_quiet(&f), 0);
		stamp(f.map, 1);
		stamp(f.map + CHUNK, 1);
		MINI_SET(f.m, write_mode, MINI_HOLD);
		EXPECT_RET(fix_push(&f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 2);
		stamp(f.map + 2 * CHUNK, 2);
		EXPECT_RET(region_del(f.id), -EBUSY);
		lost = 0;
		EXPECT_RET(region_del_force(f.id, &lost), 0);
		EXPECT_EQ(lost, 3 * PAGE);
		EXPECT_RET(region_del_force(f.id, &lost), -ENOENT);

		EXPECT_RET(try_read(f.map, NULL, NULL), -EFAULT);
		EXPECT_RET(try_write(f.map + 2 * CHUNK, 1, NULL), -EFAULT);
		EXPECT_RET(SYS(pread(f.fd, &byte, 1, 0)), -EIO);
		EXPECT_RET(SYS(pwrite(f.fd, &byte, 1, CHUNK)), -EIO);
		EXPECT_RET(SYS(fsync(f.fd)), -EIO);
		EXPECT_RET(SYS(msync(f.map, SIZE, MS_SYNC)), -EIO);
		EXPECT_RET(region_punch(f.fd, 0, PAGE), -EIO);
		EXPECT_RET(region_attach(f.fd, "x"), -EISCONN);
		/* The daemon's late answers hit nothing. */
		MINI_SET(f.m, write_mode, MINI_OK);
		EXPECT_SOON(MINI_GET(f.m, held) == 0);
		EXPECT_EQ(MINI_GET(f.m, unknown), 2);
		munmap(f.map, SIZE);
		close(f.fd);
		mini_kill(f.m);
	}
}

TEST(del_by_force_loses_nothing_that_is_durable)
{
	__u64 lost = 1;
	struct fix f;

	ASSERT_RET(fix_start(&f, &plain), 0);
	stamp(f.map, 1);
	ASSERT_RET(SYS(fsync(f.fd)), 0);
	EXPECT_RET(region_del_force(f.id, &lost), 0);
	EXPECT_EQ(lost, 0);
	EXPECT(stamped(f.store, 1));
	/* The name is free for another one. */
	munmap(f.map, SIZE);
	close(f.fd);
	mini_kill(f.m);
}

static void *map_writer(void *arg)
{
	struct fix *f = arg;
	size_t i = 0;

	while (!try_write(f->map + i++ % (SIZE / PAGE) * PAGE, 1, NULL))
		;
	return NULL;
}

static void *file_writer(void *arg)
{
	struct fix *f = arg;
	char buf[3 * PAGE] = "x";
	size_t i = 0;
	ssize_t n;

	do {
		n = pwrite(f->fd, buf, sizeof(buf), i++ % (SIZE / PAGE - 3) * PAGE);
	} while (n > 0);
	return (void *)(long)(n < 0 ? errno : 0);
}

/* In the middle of faults, writes and fetches that nobody answers. */
TEST(del_by_force_under_load)
{
	pthread_t t[4];
	void *seen;
	int round, i;
	struct fix f;
	__u64 lost;

	for (round = 0; round < 12; round++) {
		context("round %d", round);
		ASSERT_RET(fix_start(&f, &plain), 0);
		MINI_SET(f.m, write_mode, round % 2 ? MINI_HOLD : MINI_OK);
		MINI_SET(f.m, fetch_mode, round % 3 == 2 ? MINI_HOLD : MINI_OK);
		for (i = 0; i < 4; i++)
			ASSERT_EQ(pthread_create(&t[i], NULL, i % 2 ? file_writer : map_writer,
						 &f), 0);
		usleep(1000 * (round * 7 % 40));
		fix_push(&f);
		EXPECT_RET(region_del_force(f.id, &lost), 0);
		for (i = 0; i < 4; i++) {
			pthread_join(t[i], &seen);
			EXPECT_EQ((long)seen, i % 2 ? EIO : 0);
		}
		munmap(f.map, SIZE);
		close(f.fd);
		mini_kill(f.m);
	}
}

/* A daemon serves it, but nobody uses it: that is no reason to keep it. */
TEST(del_while_served)
{
	struct region_conf conf = plain;
	struct rmem_request q;
	struct chan c;
	__u32 id;

	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, id), 0);
	EXPECT_RET(chan_prefetch(&c, id, 0, 0, SIZE), 4);
	ASSERT_EQ(chan_next(&c, &q, 20000), 1);
	EXPECT_RET(region_del(id), 0);
	/* Its requests are nobody's. */
	EXPECT_RET(chan_complete(&c, &q.cookie, 1, EIO), 1);
	EXPECT_RET(chan_push(&c, id), -ENOENT);
	EXPECT_RET(chan_state(&c, id, RMEM_STATE_ACTIVE, ""), -ENOENT);
	/* The channel serves another as well as ever. */
	ASSERT_RET(region_new(&conf, &id), 0);
	EXPECT_RET(chan_serve(&c, id), 0);
	EXPECT_RET(region_del(id), 0);
	chan_close(&c);
}

/* Unmade while others open, list and look: each gets all of it or nothing. */
struct race {
	const char *name;
	int stop;
};

static void *look_thread(void *arg)
{
	struct race *r = arg;
	struct region_stat st;
	int fe, fd;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		for (fe = 0; fe < FE_COUNT; fe++) {
			fd = frontend_open(fe, r->name, O_RDONLY);
			if (fd >= 0) {
				EXPECT_RET(SYS(lseek(fd, 0, SEEK_END)), SIZE);
				close(fd);
			} else if (fd != -ENOENT && fd != -ENODEV && fd != -ENXIO) {
				EXPECT_RET(fd, -ENOENT);
			}
		}
		if (!region_get_name(r->name, &st))
			EXPECT_EQ(st.size, SIZE);
	}
	return NULL;
}

TEST(del_against_open)
{
	struct race r = { .name = "race" };
	struct region_conf conf = plain;
	pthread_t t;
	__u32 id;
	int i;

	ASSERT(rmemfs_mount());
	conf.name = r.name;
	ASSERT_EQ(pthread_create(&t, NULL, look_thread, &r), 0);
	for (i = 0; i < 50; i++) {
		ASSERT_RET(region_new(&conf, &id), 0);
		ASSERT_SOON(region_del(id) == 0);
	}
	__atomic_store_n(&r.stop, 1, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
}

/*
 * Nothing left
 */

/* Lines of a text file that hold @word. */
static int lines(const char *path, const char *word)
{
	FILE *f = fopen(path, "re");
	char line[1024];
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += !!strstr(line, word);
	if (f)
		fclose(f);
	return n;
}

static int entries(const char *dir, const char *prefix)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		n += !strncmp(e->d_name, prefix, strlen(prefix));
	if (d)
		closedir(d);
	return n;
}

struct traces {
	int nodes, fds, mounts, rmem_mounts, bdis, devices;
};

static struct traces traces(void)
{
	return (struct traces){
		.nodes = entries("/dev", "rmem-"),
		.fds = entries("/proc/self/fd", ""),
		.mounts = lines("/proc/self/mountinfo", ""),
		.rmem_mounts = lines("/proc/self/mountinfo", "rmem"),
		.bdis = entries("/sys/class/bdi", ""),
		.devices = entries("/sys/class/rmem", ""),
	};
}

TEST(cycles_leave_nothing)
{
	struct traces before, after;
	struct region_conf conf = plain;
	unsigned char *p;
	struct chan c;
	__u32 id;
	int i, fd;

	ASSERT_RET(chan_open(&c, 64), 0);
	before = traces();
	for (i = 0; i < 200; i++) {
		conf.name = region_fresh_name();
		ASSERT_RET(region_new(&conf, &id), 0);
		if (i % 2)
			ASSERT_RET(chan_serve(&c, id), 0);
		fd = ASSERT_OK(frontend_open(i % 4 < 2 ? FE_DEVICE : FE_NODE,
					     conf.name, O_RDWR));
		p = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
		ASSERT(p != MAP_FAILED);
		munmap(p, SIZE);
		close(fd);
		ASSERT_RET(region_del(id), 0);
		EXPECT_RET(SYS(access(frontend_path(FE_NODE, conf.name), F_OK)), -ENOENT);
	}
	/* Nodes and BDIs may be taken down by the kernel's workers. */
	EXPECT_SOON(traces().bdis <= before.bdis);
	EXPECT_SOON(traces().nodes <= before.nodes);
	after = traces();
	EXPECT_EQ(after.nodes, before.nodes);
	EXPECT_EQ(after.fds, before.fds);
	EXPECT_EQ(after.mounts, before.mounts);
	EXPECT_EQ(after.rmem_mounts, before.rmem_mounts);
	EXPECT_EQ(after.bdis, before.bdis);
	EXPECT_EQ(after.devices, before.devices);
	chan_close(&c);
}

/* The private mount of a region is nobody's to see. */
TEST(region_mounts_are_hidden)
{
	int mounts = lines("/proc/self/mountinfo", "");
	__u32 id;

	ASSERT_RET(region_new(&plain, &id), 0);
	EXPECT_EQ(lines("/proc/self/mountinfo", ""), mounts);
	EXPECT_RET(region_del(id), 0);
}

TEST(ids_and_minors_are_not_reused_soon)
{
	struct region_conf conf = plain;
	__u32 id[40];
	dev_t dev[40];
	struct stat st;
	int i, k;

	conf.name = "again";
	for (i = 0; i < 40; i++) {
		ASSERT_RET(region_new(&conf, &id[i]), 0);
		ASSERT_RET(SYS(stat(frontend_path(FE_NODE, "again"), &st)), 0);
		dev[i] = st.st_rdev;
		EXPECT_NE(id[i], 0);
		for (k = 0; k < i; k++) {
			EXPECT_NE(id[i], id[k]);
			EXPECT_NE(dev[i], dev[k]);
		}
		EXPECT_RET(region_del(id[i]), 0);
	}
}

/* A node made by hand for a region that was, is not the one that is. */
TEST(stale_node)
{
	const char *path = "/tmp/selftest-stale-node";
	struct region_conf conf = plain;
	struct stat st;
	__u32 id;

	conf.name = "stale";
	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(SYS(stat(frontend_path(FE_NODE, "stale"), &st)), 0);
	unlink(path);
	ASSERT_RET(SYS(mknod(path, S_IFCHR | 0600, st.st_rdev)), 0);
	ASSERT_OK(close(ASSERT_OK(SYS(open(path, O_RDONLY)))));
	EXPECT_RET(region_del(id), 0);
	EXPECT(open(path, O_RDONLY) < 0);
	ASSERT_RET(region_new(&conf, &id), 0);
	EXPECT(open(path, O_RDONLY) < 0);
	unlink(path);
	EXPECT_RET(region_del(id), 0);
}

TEST(rmemfs_follows)
{
	struct region_conf conf = plain;
	char path[128];
	struct stat st;
	__u32 id;
	int fd;

	ASSERT(rmemfs_mount());
	conf.name = "comes-and-goes";
	snprintf(path, sizeof(path), "%s", frontend_path(FE_FILE, conf.name));
	EXPECT_RET(SYS(stat(path, &st)), -ENOENT);
	EXPECT_EQ(entries(rmemfs_mount(), conf.name), 0);
	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(SYS(stat(path, &st)), 0);
	EXPECT_EQ(st.st_size, SIZE);
	EXPECT_EQ(entries(rmemfs_mount(), conf.name), 1);
	EXPECT_RET(region_del(id), 0);
	EXPECT_RET(SYS(stat(path, &st)), -ENOENT);
	EXPECT_RET(SYS(open(path, O_RDONLY)), -ENOENT);
	EXPECT_EQ(entries(rmemfs_mount(), conf.name), 0);
	/* The same name again is another region, whatever was cached. */
	conf.size = 2 * SIZE;
	conf.mode = 0644;
	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(SYS(stat(path, &st)), 0);
	EXPECT_EQ(st.st_size, 2 * SIZE);
	EXPECT_EQ(st.st_mode, S_IFREG | 0644);
	fd = ASSERT_OK(SYS(open(path, O_RDONLY)));
	EXPECT_RET(SYS(lseek(fd, 0, SEEK_END)), 2 * SIZE);
	close(fd);
	EXPECT_RET(region_del(id), 0);
	EXPECT_RET(rmemfs_umount(), 0);
}

/* A path descriptor is no open file of the region. */
TEST(o_path_does_not_keep_it)
{
	struct region_conf conf = plain;
	char path[64];
	__u32 id;
	int fd;

	ASSERT(rmemfs_mount());
	conf.name = region_fresh_name();
	ASSERT_RET(region_new(&conf, &id), 0);
	fd = ASSERT_OK(SYS(open(frontend_path(FE_FILE, conf.name), O_PATH)));
	EXPECT_EQ(STAT(id, users), 0);
	EXPECT_RET(region_del(id), 0);
	/* To open what is gone by way of it does not bring it back. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	EXPECT(open(path, O_RDONLY) < 0);
	close(fd);
}

/* And mounts are not, either: rmemfs shows regions, it does not hold them. */
TEST(two_mounts)
{
	struct region_conf conf = plain;
	char path[128];
	struct stat st;
	__u32 id;

	ASSERT(rmemfs_mount());
	snprintf(path, sizeof(path), "%s.2", rmemfs_mount());
	mkdir(path, 0755);
	ASSERT_RET(SYS(mount("rmemfs", path, "rmemfs", 0, NULL)), 0);
	conf.name = "twice";
	ASSERT_RET(region_new(&conf, &id), 0);
	ASSERT_RET(SYS(stat(frontend_path(FE_FILE, "twice"), &st)), 0);
	EXPECT_EQ(st.st_size, SIZE);
	EXPECT_EQ(entries(path, "twice"), 1);
	EXPECT_RET(region_del(id), 0);
	EXPECT_EQ(entries(path, "twice"), 0);
	EXPECT_RET(SYS(umount(path)), 0);
	rmdir(path);
	EXPECT_RET(rmemfs_umount(), 0);
}

/*
 * The module
 */

static int rmmod(void)
{
	return SYS(syscall(SYS_delete_module, "rmem", O_NONBLOCK));
}

static bool in_use(int ret)
{
	return ret == -EBUSY || ret == -EAGAIN;
}

TEST(rmmod_is_refused)
{
	struct region_conf conf = plain;
	struct chan c;
	__u32 id;
	int fd;

	ASSERT_RET(region_new(&conf, &id), 0);
	context("region");
	EXPECT(in_use(rmmod()));
	context("daemon");
	ASSERT_RET(chan_open(&c, 64), 0);
	EXPECT(in_use(rmmod()));
	ASSERT_RET(chan_serve(&c, id), 0);
	EXPECT_RET(region_del(id), 0);
	EXPECT(in_use(rmmod()));
	chan_close(&c);
	context("open device");
	fd = ASSERT_OK(SYS(open(DEVICE_PATH, O_RDONLY | O_CLOEXEC)));
	EXPECT(in_use(rmmod()));
	ASSERT_RET(region_new(&conf, &id), 0);
	close(fd);
	EXPECT(in_use(rmmod()));
	context("mount");
	ASSERT(rmemfs_mount());
	EXPECT_RET(region_del(id), 0);
	EXPECT(in_use(rmmod()));
	EXPECT_RET(rmemfs_umount(), 0);
}

/*
 * Many
 */

TEST(many_regions)
{
	struct region_conf conf = plain;
	unsigned char *map[MINI_REGIONS];
	struct mini *m = mini_new();
	int fd[MINI_REGIONS], i, k;

	for (i = 0; i < MINI_REGIONS; i++)
		ASSERT_RET(mini_add(m, &conf), 0);
	ASSERT_RET(mini_start(m), 0);
	for (i = 0; i < MINI_REGIONS; i++) {
		fd[i] = ASSERT_OK(frontend_open(i % 2, m->regions[i].name, O_RDWR));
		map[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd[i], 0);
		ASSERT(map[i] != MAP_FAILED);
	}
	for (k = 0; k < 4; k++) {
		for (i = 0; i < MINI_REGIONS; i++)
			stamp(map[i] + k * CHUNK, i * 10 + k);
	}
	/* One daemon dies, another takes all of them over. */
	mini_kill(m);
	for (i = 0; i < MINI_REGIONS; i++)
		EXPECT_SOON(STAT(m->regions[i].id, state) == RMEM_STATE_QUIESCED);
	ASSERT_RET(mini_start(m), 0);
	for (i = 0; i < MINI_REGIONS; i++) {
		context("region %d", i);
		EXPECT_RET(SYS(fsync(fd[i])), 0);
		for (k = 0; k < 4; k++) {
			EXPECT(stamped(m->regions[i].store + k * CHUNK, i * 10 + k));
			EXPECT_EQ(pattern_diff(map[i] + k * CHUNK + PAGE, k * CHUNK + PAGE,
					       CHUNK - PAGE), -1);
		}
		munmap(map[i], SIZE);
		close(fd[i]);
		EXPECT_RET(region_del(m->regions[i].id), 0);
	}
	context(" ");
	EXPECT_EQ(m->trouble, 0);
}

/* The writer id is minted once, and no two regions have the same. */
TEST(writer_ids)
{
	struct region_stat a, b;
	__u32 ida, idb;

	ASSERT_RET(region_new(&plain, &ida), 0);
	ASSERT_RET(region_new(&plain, &idb), 0);
	ASSERT_RET(region_get(ida, &a), 0);
	ASSERT_RET(region_get(idb, &b), 0);
	EXPECT(a.has_writer);
	EXPECT(b.has_writer);
	EXPECT(memcmp(a.writer, b.writer, sizeof(a.writer)));
	EXPECT(bytes_diff(a.writer, 0, sizeof(a.writer)) >= 0);
	EXPECT_RET(region_get(ida, &b), 0);
	EXPECT(!memcmp(a.writer, b.writer, sizeof(a.writer)));
	EXPECT_RET(region_del(ida), 0);
	EXPECT_RET(region_del(idb), 0);
}
