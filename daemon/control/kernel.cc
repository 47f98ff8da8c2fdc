// SPDX-License-Identifier: MIT
#include "control/kernel.hh"

#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace rmem::control {
namespace {

// Threads for calls that block, one each: a call that waits for its deadline
// must not hold up another. They are left behind if the program ends first.
class Background {
 public:
  explicit Background(Reactor& reactor) : shared_(std::make_shared<Shared>()) {
    shared_->reactor = &reactor;
  }
  ~Background() {
    const std::lock_guard lock(shared_->mutex);
    shared_->reactor = nullptr;
  }

  void run(std::function<Status()> work, Kernel::Finished done) {
    auto task = std::make_shared<Task>(Task{std::move(work), std::move(done)});
    try {
      std::thread([shared = shared_, task] {
        const Status status = task->work();
        const std::lock_guard lock(shared->mutex);
        // Where nobody listens any more, `done` belongs to nobody either.
        if (!shared->reactor) return;
        shared->reactor->post([status, done = std::move(task->done)] { done(status); });
      }).detach();
    } catch (const std::system_error& e) {
      task->done(Status::from_errno(e.code().value(), "no thread for it").with_hint("try again"));
    }
  }

 private:
  struct Task {
    std::function<Status()> work;
    Kernel::Finished done;
  };
  struct Shared {
    std::mutex mutex;
    Reactor* reactor;  // null once nobody listens any more
  };
  std::shared_ptr<Shared> shared_;
};

class ModuleKernel final : public Kernel {
 public:
  ModuleKernel(Reactor& reactor, kchan::Device& device, std::unique_ptr<kchan::Netlink> netlink)
      : device_(device), netlink_(std::move(netlink)), background_(reactor) {}

  Result<std::vector<kchan::RegionInfo>> list() override { return netlink_->list(); }
  Result<kchan::RegionInfo> get(const std::string& name) override { return netlink_->get(name); }
  Result<kchan::Netlink::Made> make(const kchan::RegionInfo& wanted) override {
    return netlink_->make(device_.fd(), wanted);
  }
  Status set_blob(std::uint32_t id, const std::string& blob) override {
    return netlink_->set_blob(device_.fd(), id, blob);
  }
  Status unmake(std::uint32_t id) override { return netlink_->unmake(device_.fd(), id); }
  Result<std::uint64_t> unmake_by_force(std::uint32_t id) override {
    return netlink_->unmake_by_force(device_.fd(), id);
  }
  int serve(std::uint32_t id) override { return device_.serve(id); }

  void sync(const std::string& name, Finished done) override {
    background_.run([name] { return kchan::sync_region(name); }, std::move(done));
  }
  void drop(const std::string& name, Finished done) override {
    background_.run([name] { return kchan::drop_region(name); }, std::move(done));
  }

 private:
  kchan::Device& device_;
  std::unique_ptr<kchan::Netlink> netlink_;
  Background background_;
};

}  // namespace

Result<std::unique_ptr<Kernel>> module_kernel(Reactor& reactor, kchan::Device& device) {
  auto netlink = kchan::Netlink::open();
  if (!netlink.ok()) return netlink.status();
  return std::unique_ptr<Kernel>(new ModuleKernel(reactor, device, std::move(*netlink)));
}

}  // namespace rmem::control
