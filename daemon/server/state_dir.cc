// SPDX-License-Identifier: MIT
#include "server/state_dir.hh"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "base/log.hh"

namespace rmem::server {
namespace {

using nlohmann::json;

std::string join(const std::string& directory, const std::string& name) {
  return directory + "/" + name;
}

// Of the path; FNV-1a. A collision would show, since the record has the path.
std::string hash_name(const std::string& path) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : path) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  return fmt::format("{:016x}", hash);
}

// Paths are bytes, JSON is UTF-8.
std::string printable(const std::string& path) {
  std::string text;
  for (const char c : path) {
    const auto byte = static_cast<std::uint8_t>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '%')
      text += fmt::format("%{:02x}", byte);
    else
      text += c;
  }
  return text;
}

Uuid to_uuid(const json& value) {
  auto uuid = uuid_parse(value.get<std::string>());
  if (!uuid) throw std::runtime_error(uuid.status().cause());
  return *uuid;
}

Status write_file(const std::string& path, std::span<const std::byte> bytes) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return Status::from_errno(errno, path);
  if (const int err = store::write_all(fd.get(), bytes, 0); err != 0)
    return Status::from_errno(err, path);
  if (::fsync(fd.get()) != 0) return Status::from_errno(errno, path);
  return Status();
}

Status sync_directory(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return Status::from_errno(errno, path);
  return Status();
}

// On stable storage when it returns ok; otherwise what was there stands.
Status replace_file(const std::string& path, std::span<const std::byte> bytes) {
  const std::string temporary = path + ".new";
  if (Status written = write_file(temporary, bytes); !written.ok()) return written;
  if (::rename(temporary.c_str(), path.c_str()) != 0) return Status::from_errno(errno, path);
  return sync_directory(std::filesystem::path(path).parent_path());
}

}  // namespace

Result<StateDir> StateDir::open(const std::string& path) {
  const std::string hint = "give a directory of your own with --state-dir";
  std::error_code error;
  const std::string stores = join(path, "stores");
  if (std::filesystem::create_directories(stores, error); error)
    return Status::from_errno(error.value(), "cannot create " + path).with_hint(hint);
  // Records name paths and writers; only ours to read.
  ::chmod(path.c_str(), 0700);
  // The directories, too, have to be there after a crash of the host.
  if (const Status synced = sync_directory(path); !synced.ok()) return synced.with_hint(hint);
  if (const Status synced = sync_directory(join(path, "..")); !synced.ok())
    return synced.with_hint(hint);
  const std::string lock_path = join(path, "lock");
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock) return Status::from_errno(errno, lock_path).with_hint(hint);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return Status(Code::kBusy, path + ": another rmem-server uses this state directory",
                    "stop it, or give another directory with --state-dir");
    return Status::from_errno(errno, lock_path);
  }
  return StateDir(path, std::move(lock));
}

std::string StateDir::record_path(const store::FileFacts& facts) const {
  return join(path_, "stores/" + hash_name(facts.path) + ".json");
}

Result<StoreRecord> StateDir::load(const store::FileFacts& facts) const {
  const std::string path = record_path(facts);
  std::ifstream file(path);
  if (file) {
    std::stringstream text;
    text << file.rdbuf();
    try {
      const json document = json::parse(text.str());
      if (document.at("schema") != 1) throw std::runtime_error("unknown schema");
      const bool same = document.at("path") == printable(facts.path) &&
                        document.at("inode") == facts.inode &&
                        document.at("birth") == facts.birth && document.at("size") == facts.size &&
                        (!facts.identity || to_uuid(document.at("identity")) == *facts.identity);
      if (same) {
        StoreRecord record;
        record.identity = to_uuid(document.at("identity"));
        record.claim.generation = document.at("generation").get<std::uint64_t>();
        if (!document.at("writer").get_ref<const std::string&>().empty())
          record.claim.writer = to_uuid(document.at("writer"));
        for (const json& writer : document.at("fenced"))
          record.claim.fenced.push_back(to_uuid(writer));
        return record;
      }
      log::Source("state").warning("{} is not what it was: it has a new identity", facts.path);
    } catch (const std::exception& error) {
      // Inventing an identity here would fail every region that is attached.
      return Status(Code::kCorrupt, path + ": " + error.what(),
                    "restore it from a backup, or remove it: attached regions will then fail");
    }
  } else if (errno != ENOENT) {
    return Status::from_errno(errno, path);
  }
  StoreRecord record;
  record.identity = facts.identity.value_or(uuid_random());
  if (const Status saved = save(facts, record); !saved.ok()) return saved;
  return record;
}

Result<std::array<std::uint8_t, 32>> StateDir::secret(const std::string& name) const {
  const std::string path = join(path_, name);
  std::array<std::uint8_t, 32> bytes{};
  const auto all = std::as_writable_bytes(std::span(bytes));
  if (const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)); fd) {
    if (::read(fd.get(), all.data(), all.size()) == static_cast<ssize_t>(all.size())) return bytes;
  } else if (errno != ENOENT) {
    return Status::from_errno(errno, path);
  }
  if (::getrandom(all.data(), all.size(), 0) != static_cast<ssize_t>(all.size()))
    return Status::from_errno(errno, "getrandom");
  if (Status written = replace_file(path, all); !written.ok()) return written;
  return bytes;
}

Status StateDir::save(const store::FileFacts& facts, const StoreRecord& record) const {
  nlohmann::ordered_json document = {
      {"schema", 1},
      {"path", printable(facts.path)},
      {"inode", facts.inode},
      {"birth", facts.birth},
      {"size", facts.size},
      {"identity", uuid_to_string(record.identity)},
      {"generation", record.claim.generation},
      {"writer", record.claim.writer ? uuid_to_string(*record.claim.writer) : ""},
      {"fenced", json::array()},
  };
  for (const Uuid& writer : record.claim.fenced)
    document["fenced"].push_back(uuid_to_string(writer));
  const std::string path = record_path(facts);
  const std::string text = document.dump() + "\n";
  return replace_file(path, std::as_bytes(std::span(text)));
}

}  // namespace rmem::server
