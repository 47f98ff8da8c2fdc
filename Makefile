# SPDX-License-Identifier: MIT
#
# Front door of rmem: `make help` lists the targets. How things are built stands
# elsewhere: daemon/CMakeLists.txt (user space), kmod/Kbuild through
# scripts/kmod.sh (the module), tests/selftest/Makefile and tests/load/Makefile
# (tests in C).

PREFIX  ?= /usr/local
DESTDIR ?=
STRIP   ?= -s
# site-functions; vendor-completions in Debian's packages
ZSH_DIR ?= site-functions
B       := build
running := /lib/modules/$(shell uname -r)/build

.DEFAULT_GOAL := all

all: programs $(if $(wildcard $(running)),kmod-running) ## the programs, and the module where the running kernel's headers are

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 26

deps: ## install the Debian packages that building and testing need
	@scripts/deps.sh

programs := rmemd rmem-server rmemctl

# --- build -------------------------------------------------------------------

$(B)/cmake/build.ninja:
	cmake -S daemon -B $(B)/cmake -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo

programs: $(B)/cmake/build.ninja ## rmemd, rmem-server, rmemctl; and rmem-bench, which is not installed
	cmake --build $(B)/cmake --target $(programs) rmem-bench

user: $(B)/cmake/build.ninja ## the programs and their unit tests
	cmake --build $(B)/cmake

ifdef KDIR
kmod: ## the module: KDIR=... for one kernel, else for the running and all fetched ones
	scripts/kmod.sh $(KDIR)
else
kmod: $(if $(wildcard $(running)),kmod-running) kmod-fetched
endif

kmod-running:
	scripts/kmod.sh $(running)

kmod-fetched:
	@for rel in $$(tests/vm/kernels.sh list); do \
		echo "scripts/kmod.sh $$rel"; \
		scripts/kmod.sh $(B)/kernels/$$rel/lib/modules/$$rel/build || exit 1; \
	done

kernels: ## fetch the kernels of the VM into build/kernels (RMEM_KERNELS="6.1 6.12")
	@tests/vm/kernels.sh fetch

selftest: ## the tests in C that run in the VM
	@$(MAKE) --no-print-directory -C tests/selftest O=$(abspath $(B)/selftest)

load: ## the programs that the end-to-end tests put load on regions with
	@$(MAKE) --no-print-directory -C tests/load O=$(abspath $(B))

# --- test --------------------------------------------------------------------

test: ## everything, in VMs where it needs the module
	@tests/run.sh

check-kernels: ## everything, and each end-to-end test on each kernel, not on one of them; an hour
	@RMEM_ONLY=. tests/run.sh

check-long: ## the long tests in full, and check-kcsan; hours
	@RMEM_LONG=yes tests/run.sh
	@$(if $(RMEM_ONLY),,$(MAKE) --no-print-directory check-kcsan)

# Those that leave it to lib.sh what carries their regions.
transport_e2e := kill9_rmemd kill9_server nemeses nemeses_disk fsx dirty_limit pull pull_recorded shared_region \
		 resident_limit soak

check-transports: export RMEM_ONLY := $(or $(RMEM_ONLY),^e2e/($(subst $() $(),|,$(strip $(transport_e2e))))$$)
check-transports: ## the end-to-end tests that no transport minds, over TLS by the kernel and in user space, and over QUIC
	@RMEM_TRANSPORT=tls tests/run.sh
	@RMEM_TRANSPORT=tls-user tests/run.sh
	@RMEM_TRANSPORT=quic tests/run.sh

quic: ## fetch ngtcp2 into build/quic and configure for QUIC
	@scripts/quic.sh
	cmake -S daemon -B $(B)/cmake -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo | grep QUIC

check-guards: ## each guard taken out in turn: does its test notice? an hour
	@tests/guards/run.sh

# What the selftests do not reach: deaths, pressure, the lanes, what is unmade by force; and of
# each row of the fault matrix that the module has a part in, the test that has a guard.
debug_e2e := cold_read kill9_rmemd kill9_server readopt force lanes resident_limit dirty_limit cgroup_limit \
	     shared_region silent_daemon on_loss take_over disk_full cgroup_charge foreign_server another_store \
	     reset_server_host soak attach_cycles fsx nemeses page_first asked

debug_tests := $(or $(RMEM_ONLY),^(detectors|selftest/.*|e2e/($(subst $() $(),|,$(strip $(debug_e2e)))))$$)

check-kmod-debug: export RMEM_KERNELS := 6.12-kasan
check-kmod-debug: export RMEM_ONLY := $(debug_tests)
check-kmod-debug: ## the module on a kernel with KASAN, lockdep, kmemleak and failures on demand (25 min of CPU once, then an hour)
	@tests/run.sh

check-kcsan: export RMEM_KERNELS := 6.12-kcsan
check-kcsan: export RMEM_ONLY := $(debug_tests)
check-kcsan: ## the same on a kernel that looks for data races (25 min of CPU once, then an hour)
	@tests/run.sh

fuzz: ## every decoder for FUZZ_SECONDS=60 each (FUZZ_ONLY=REGEX for some); clang
	@tests/fuzz/run.sh

vm: deps kernels programs kmod-fetched ## a root shell in the VM, module loaded, programs on PATH (KERNEL=6.1)
	@tests/vm/run.sh --interactive --mem 2048 --scratch 4G $(if $(KERNEL),--kernel $(KERNEL))

bench: ## rmem and its peers side by side in a VM: a table, a TSV, plots in build/bench (an hour)
	@scripts/deps.sh bench
	@$(MAKE) --no-print-directory kernels programs kmod-fetched
	@tests/bench/run.sh

bench-gate: kernels programs kmod-fetched ## what pages cost against what is recorded in tests/bench; part of `make test`
	@tests/bench/gate.sh

demo: ## serve, attach and use a real file in a throw-away VM
	@scripts/demo.sh

check-deb: deb ## the Debian packages in a clean Debian 12 (network, minutes)
	@tests/packaging/deb.sh

lint: deps kernels ## formats, static analysis, warnings, checkpatch, shellcheck
	@scripts/lint.sh

format: ## clang-format the C++ sources
	@scripts/lint.sh --fix-format

# --- install -----------------------------------------------------------------

# SOURCE:WHERE, WHERE below PREFIX, of what is not a program
installed := \
	$(foreach f,$(wildcard uapi/linux/*.h),$f:include/linux/$(notdir $f)) \
	$(foreach f,$(wildcard docs/man/*.[1-8]),$f:share/man/man$(subst .,,$(suffix $f))/$(notdir $f)) \
	$(foreach p,rmemd rmem-server,tools/config/$p.toml:share/doc/$p/examples/$p.toml) \
	$(foreach p,$(programs),tools/completion/rmem.bash:share/bash-completion/completions/$p) \
	$(foreach p,$(programs),tools/completion/rmem.fish:share/fish/vendor_completions.d/$p.fish) \
	tools/completion/_rmem:share/zsh/$(ZSH_DIR)/_rmem \
	$(foreach f,$(wildcard tools/systemd/*.service tools/systemd/*.socket tools/systemd/*.mount),$f:lib/systemd/system/$(notdir $f)) \
	$(foreach d,sysusers tmpfiles modules-load,$(foreach f,$(wildcard tools/systemd/*.$d),$f:lib/$d.d/$(basename $(notdir $f)).conf)) \
	$(foreach f,$(wildcard tools/systemd/*.rules),$f:lib/udev/rules.d/$(notdir $f))

install: programs ## programs, manuals, headers, units, completions and examples below DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin
	install $(STRIP) -m 0755 $(programs:%=$(B)/%) $(DESTDIR)$(PREFIX)/bin
	@set -e; for f in $(installed); do \
		install -D -m 0644 "$${f%%:*}" "$(DESTDIR)$(PREFIX)/$${f#*:}"; done
	install -d $(DESTDIR)/etc/rmem/regions
	sed -i 's|@bindir@|$(PREFIX)/bin|' $(DESTDIR)$(PREFIX)/lib/systemd/system/rmem*.service

dkms-install: ## the module under DKMS, for every kernel whose headers are there
	@DESTDIR='$(DESTDIR)' scripts/dkms.sh install

dkms-uninstall: ## remove the module from DKMS and its source
	@DESTDIR='$(DESTDIR)' scripts/dkms.sh uninstall

deb: ## Debian packages, as build/deb/*.deb
	@scripts/deb.sh

uninstall: ## remove what install put there
	rm -f $(programs:%=$(DESTDIR)$(PREFIX)/bin/%)
	rm -f $(foreach f,$(installed),$(DESTDIR)$(PREFIX)/$(lastword $(subst :, ,$f)))

clean: ## remove what was built, not what was fetched
	find $(B) -mindepth 1 -maxdepth 1 ! -name kernels ! -name linux-source -exec rm -rf {} + 2>/dev/null || true

distclean: ## remove build/ altogether
	rm -rf $(B)

.PHONY: all bench bench-gate check-guards quic help deps programs user kmod kmod-running kmod-fetched kernels selftest load test check-kernels check-long fuzz check-kmod-debug check-kcsan vm demo lint format install uninstall dkms-install dkms-uninstall deb check-deb clean distclean
