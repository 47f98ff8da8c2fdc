// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "command.hh"
#include "kchan/device.hh"

namespace rmem::ctl {
namespace {

Status from_errno(const std::string& what) { return Status::from_errno(errno, what); }

// A file that appears complete or not at all.
class NewFile {
 public:
  explicit NewFile(std::string path) : path_(std::move(path)) {}
  ~NewFile() {
    if (fd_ && !kept_) ::unlink(path_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  Status create() {
    fd_.reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (fd_) return Status();
    if (errno == EEXIST) {
      return Status(Code::kUsage, path_ + " exists", "choose a name that is not taken", EEXIST);
    }
    return from_errno(path_);
  }
  Status write(const char* bytes, std::size_t length, std::uint64_t offset) {
    while (length != 0) {
      const ssize_t n = ::pwrite(fd_.get(), bytes, length, static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return from_errno(path_);
      bytes += n;
      offset += static_cast<std::uint64_t>(n);
      length -= static_cast<std::size_t>(n);
    }
    return Status();
  }
  Status resize(std::uint64_t size) {
    return ::ftruncate(fd_.get(), static_cast<off_t>(size)) == 0 ? Status() : from_errno(path_);
  }
  Status finish() { return ::fsync(fd_.get()) == 0 ? Status() : from_errno(path_); }
  void keep() { kept_ = true; }

 private:
  std::string path_;
  UniqueFd fd_;
  bool kept_ = false;
};

// Which parts of the copy are meant, in the form of GNU ddrescue's map files.
class Map {
 public:
  void add(const rmem_run& run) {
    gap_to(run.offset);
    line(run.offset, run.length, '+');
    end_ = run.offset + run.length;
  }
  std::string finish(std::uint64_t size) {
    gap_to(size);
    return "# Mapfile. Written by rmemctl salvage: `+' was not durable, `?' the store has.\n"
           "# current_pos  current_status  current_pass\n"
           "0x00000000  +  1\n"
           "# pos  size  status\n" +
           lines_;
  }

 private:
  void gap_to(std::uint64_t offset) {
    if (offset > end_) line(end_, offset - end_, '?');
  }
  void line(std::uint64_t offset, std::uint64_t length, char status) {
    char text[64];
    std::snprintf(text, sizeof(text), "0x%08" PRIx64 "  0x%08" PRIx64 "  %c\n", offset, length,
                  status);
    lines_ += text;
  }

  std::string lines_;
  std::uint64_t end_ = 0;
};

// What only this kernel has, into a file: works in every state of the region and
// changes nothing in it.
class Salvage final : public Command {
 public:
  explicit Salvage(CLI::App& app) : Command(app) {
    add_name(app, name_);
    app.add_option("FILE", file_, "sparse copy; FILE.map tells which parts of it are meant")
        ->required()
        ->type_name("");
    app.add_flag("--json", json_, "for programs");
  }

  bool json() const override { return json_; }

  Status run(Context& context) override {
    auto regions = context.regions();
    if (!regions.ok()) return regions.status();
    const auto info = (*regions)->get(name_);
    if (!info.ok()) return info.status();
    const auto region = kchan::open_region(name_);
    if (!region.ok()) return region.status();

    NewFile copy(file_), map_file(file_ + ".map");
    if (Status s = copy.create(); !s.ok()) return s;
    if (Status s = map_file.create(); !s.ok()) return s;
    if (Status s = copy.resize(info->size); !s.ok()) return s;
    Map map;
    const Status copied = kchan::for_each_unsafe(region->get(), [&](const rmem_run& run) {
      map.add(run);
      ++runs_;
      return copy_run(region->get(), run, copy);
    });
    if (!copied.ok()) return copied.with_context("region " + name_);
    const std::string text = map.finish(info->size);
    if (Status s = map_file.write(text.data(), text.size(), 0); !s.ok()) return s;
    if (Status s = copy.finish(); !s.ok()) return s;
    if (Status s = map_file.finish(); !s.ok()) return s;
    copy.keep();
    map_file.keep();
    tell(context);
    return Status();
  }

 private:
  Status copy_run(int region, const rmem_run& run, NewFile& copy) {
    std::string buffer(std::min<std::uint64_t>(run.length, 1 << 20), '\0');
    for (std::uint64_t done = 0; done < run.length;) {
      const std::size_t length = std::min<std::uint64_t>(buffer.size(), run.length - done);
      const ssize_t n =
          ::pread(region, buffer.data(), length, static_cast<off_t>(run.offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return from_errno("reading at " + std::to_string(run.offset + done));
      if (Status s = copy.write(buffer.data(), static_cast<std::size_t>(n), run.offset + done);
          !s.ok()) {
        return s;
      }
      done += static_cast<std::uint64_t>(n);
    }
    bytes_ += run.length;
    return Status();
  }

  void tell(Context& context) const {
    if (json_) {
      const nlohmann::ordered_json document = {{"schema", 1},     {"region", name_},
                                               {"bytes", bytes_}, {"runs", runs_},
                                               {"file", file_},   {"map", file_ + ".map"}};
      *context.out << document.dump(-1, ' ', false,
                                    nlohmann::ordered_json::error_handler_t::replace)
                   << std::endl;
    } else {
      *context.out << bytes_ << " bytes in " << runs_ << " runs, in " << file_ << " where " << file_
                   << ".map says\n";
    }
  }

  std::string name_;
  std::string file_;
  bool json_ = false;
  std::uint64_t bytes_ = 0;
  std::uint64_t runs_ = 0;
};

}  // namespace

std::unique_ptr<Command> salvage_command(CLI::App& program) {
  return std::make_unique<Salvage>(
      *program.add_subcommand("salvage", "copy what is not durable into a file"));
}

}  // namespace rmem::ctl
