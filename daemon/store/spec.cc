// SPDX-License-Identifier: MIT
#include "store/spec.hh"

#include "base/units.hh"
#include "base/uri.hh"

namespace rmem::store {
namespace {

Status bad(std::string_view text, const std::string& why) {
  return Status(Code::kUsage, "`" + std::string(text) + "': " + why,
                "stores are mem://1GiB, file:///path or file:///path?size=1GiB");
}

}  // namespace

Result<Spec> Spec::parse(std::string_view text) {
  auto uri = Uri::parse(text);
  if (!uri) return bad(text, "not a store");
  Spec spec;
  std::string size;
  if (uri->scheme == "mem") {
    if (const Status keys = uri->expect_keys({}); !keys.ok()) return bad(text, keys.cause());
    if (uri->port || (!uri->path.empty() && uri->path != "/"))
      return bad(text, "not of the form mem://SIZE");
    spec.kind = Kind::kMem;
    size = uri->host;
  } else if (uri->scheme == "file") {
    if (const Status keys = uri->expect_keys({"size"}); !keys.ok()) return bad(text, keys.cause());
    if (!uri->host.empty() || uri->port || uri->path.size() < 2)
      return bad(text, "not of the form file:///path");
    spec.kind = Kind::kFile;
    spec.path = uri->path;
    if (!uri->query.contains("size")) return spec;
    size = uri->query.at("size");
  } else {
    return bad(text, "unknown kind of store `" + uri->scheme + "'");
  }
  const auto bytes = parse_size(size);
  if (!bytes) return bad(text, bytes.status().cause());
  if (*bytes == 0) return bad(text, "the size is 0");
  spec.size = *bytes;
  return spec;
}

}  // namespace rmem::store
