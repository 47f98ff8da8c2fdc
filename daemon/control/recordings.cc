// SPDX-License-Identifier: MIT
#include "control/recordings.hh"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "base/json.hh"
#include "base/unique_fd.hh"
#include "store/local_fs.hh"

namespace rmem::control {
namespace {

// A range has some 30 characters, and a recording at most 256 Ki of them.
constexpr std::uintmax_t kLargestFile = 64 << 20;

}  // namespace

std::string recording_to_json(const Uuid& store, std::uint64_t size,
                              const std::vector<pager::Range>& ranges) {
  auto list = nlohmann::json::array();
  for (const pager::Range& range : ranges) list.push_back({range.offset, range.length});
  return nlohmann::json{{"schema", 1},
                        {"identity", uuid_to_string(store)},
                        {"size_bytes", size},
                        {"ranges", std::move(list)}}
      .dump();
}

Result<std::vector<pager::Range>> recording_from_json(const std::string& text, const Uuid& store,
                                                      std::uint64_t size) {
  const auto bad = [](const std::string& why) {
    return Status(Code::kCorrupt, "recording: " + why);
  };
  const auto parsed = parse_json(text);
  if (!parsed.is_object()) return bad("not JSON");
  const auto is = [&](const char* name, const nlohmann::json& value) {
    const auto member = parsed.find(name);
    return member != parsed.end() && *member == value;
  };
  if (!is("schema", 1)) return bad("unknown schema");
  if (!is("identity", uuid_to_string(store))) return bad("of another store");
  if (!is("size_bytes", size)) return bad("of a store of another size");
  const auto list = parsed.find("ranges");
  if (list == parsed.end() || !list->is_array()) return bad("no ranges");
  std::vector<pager::Range> ranges;
  ranges.reserve(list->size());
  for (const auto& pair : *list) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_unsigned() ||
        !pair[1].is_number_unsigned())
      return bad("a range that is none");
    const pager::Range range{pair[0].get<std::uint64_t>(), pair[1].get<std::uint64_t>()};
    if (range.length == 0 || range.offset > size || range.length > size - range.offset)
      return bad("a range that is not within the store");
    ranges.push_back(range);
  }
  return ranges;
}

std::string Recordings::path(const Uuid& store) const {
  return directory_ + "/" + uuid_to_string(store) + ".json";
}

Status Recordings::keep(const Uuid& store, std::uint64_t size,
                        const std::vector<pager::Range>& ranges) const {
  if (ranges.empty()) return Status();
  const std::string final_path = path(store), temporary = final_path + ".new";
  std::error_code error;
  if (std::filesystem::create_directories(directory_, error); error)
    return Status::from_errno(error.value(), "cannot create " + directory_)
        .with_hint("give a directory of your own with rmemd --state-dir");
  const UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return Status::from_errno(errno, temporary);
  const std::string text = recording_to_json(store, size, ranges);
  if (const int err = rmem::store::write_all(fd.get(), std::as_bytes(std::span(text)), 0); err != 0)
    return Status::from_errno(err, temporary);
  return ::rename(temporary.c_str(), final_path.c_str()) == 0
             ? Status()
             : Status::from_errno(errno, final_path);
}

Result<std::vector<pager::Range>> Recordings::find(const Uuid& store, std::uint64_t size) const {
  const std::string file = path(store);
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(file, error);
  if (error.value() == ENOENT) return std::vector<pager::Range>();
  if (error) return Status::from_errno(error.value(), file);
  if (bytes > kLargestFile) return Status(Code::kCorrupt, file + ": too large for a recording");
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  auto ranges = recording_from_json(text.str(), store, size);
  if (!ranges) return ranges.status().with_context(file);
  return ranges;
}

}  // namespace rmem::control
