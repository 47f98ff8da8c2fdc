// SPDX-License-Identifier: MIT
#include "store/spec.hh"

#include "base/units.hh"
#include "base/uri.hh"

namespace rmem::store {
namespace {

Status no_store(std::string_view text, const std::string& why) {
  return Status(Code::kUsage, "`" + std::string(text) + "': " + why,
                "stores are mem://1GiB, file:///path, file:///path?size=1GiB, dir:///path and "
                "dir:///path?size=1GiB&chunk=1MiB, with filters in front as in delay+mem://1GiB");
}

Result<std::uint64_t> positive(const std::string& text) {
  auto bytes = parse_size(text);
  if (bytes && *bytes == 0) return Status(Code::kUsage, "the size is 0");
  return bytes;
}

}  // namespace

Result<Spec> Spec::parse(std::string_view text) {
  auto filtered = FilteredUri::parse(text);
  if (!filtered) return filtered.status();
  auto uri = Uri::parse(filtered->base);
  if (!uri) return no_store(text, "not a store");
  Spec spec;
  spec.filters = std::move(filtered->filters);
  spec.base = std::move(filtered->base);
  if (uri->scheme == "mem") {
    if (const Status keys = uri->expect_keys({}); !keys.ok()) return no_store(text, keys.cause());
    if (uri->port || (!uri->path.empty() && uri->path != "/"))
      return no_store(text, "not of the form mem://SIZE");
    spec.kind = Kind::kMem;
    uri->query["size"] = uri->host;
  } else if (uri->scheme == "file" || uri->scheme == "dir") {
    spec.kind = uri->scheme == "dir" ? Kind::kDir : Kind::kFile;
    const Status keys =
        spec.kind == Kind::kDir ? uri->expect_keys({"size", "chunk"}) : uri->expect_keys({"size"});
    if (!keys.ok()) return no_store(text, keys.cause());
    if (!uri->host.empty() || uri->port || uri->path.size() < 2)
      return no_store(text, "not of the form " + uri->scheme + ":///path");
    spec.path = uri->path;
  } else {
    return no_store(text, "unknown kind of store `" + uri->scheme + "'");
  }
  for (const auto& [key, value] : uri->query) {
    const auto bytes = positive(value);
    if (!bytes) return no_store(text, bytes.status().cause());
    (key == "size" ? spec.size : spec.chunk) = *bytes;
  }
  return spec;
}

}  // namespace rmem::store
