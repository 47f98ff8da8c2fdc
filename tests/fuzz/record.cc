// SPDX-License-Identifier: MIT
// What the server keeps about a store, JSON in a file: understood or refused, never
// made up. What is understood is kept as it was.
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/log.hh"
#include "fuzz/fuzz.hh"
#include "server/state_dir.hh"

namespace {

using namespace rmem;

// A state directory for all inputs, gone with the program.
struct Place {
  Place() {
    log::set_level(log::Level::kNone);
    std::string name = "/dev/shm/rmem-fuzz-XXXXXX";
    FUZZ_CHECK(::mkdtemp(name.data()) != nullptr);
    path = name;
    auto opened = server::StateDir::open(path);
    FUZZ_CHECK(opened.ok());
    state.emplace(std::move(opened).value());
    facts = {.path = "/srv/a", .inode = 17, .birth = "1.000000000", .size = 4096};
    FUZZ_CHECK(state->load(facts).ok());  // makes one
    for (const auto& entry : std::filesystem::directory_iterator(path + "/stores"))
      record = entry.path();
  }
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string path;
  std::string record;
  std::optional<server::StateDir> state;
  store::FileFacts facts;
};

}  // namespace

FUZZ_TARGET(record) {
  static Place place;
  std::ofstream(place.record, std::ios::binary)
      .write(reinterpret_cast<const char*>(input.data()),
             static_cast<std::streamsize>(input.size()));
  const auto loaded = place.state->load(place.facts);
  if (!loaded) {
    FUZZ_CHECK(loaded.status().code() == Code::kCorrupt);
    return;
  }
  FUZZ_CHECK(place.state->save(place.facts, *loaded).ok());
  const auto again = place.state->load(place.facts);
  FUZZ_CHECK(again.ok() && again->identity == loaded->identity && again->claim == loaded->claim);
}
