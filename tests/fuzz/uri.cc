// SPDX-License-Identifier: MIT
// URIs of every kind, addresses and exports: what is understood is written back as
// something that means the same.
#include "base/uri.hh"

#include <algorithm>

#include "fuzz/fuzz.hh"
#include "server/export.hh"
#include "store/filter.hh"
#include "store/remote.hh"
#include "store/spec.hh"
#include "transport/address.hh"

FUZZ_TARGET(uri) {
  using namespace rmem;
  const std::string_view text = fuzz::text(input);

  if (const auto uri = Uri::parse(text)) {
    FUZZ_CHECK(!uri->scheme.empty());
    FUZZ_CHECK(uri->path.empty() || uri->path[0] == '/');
    FUZZ_CHECK(uri->port.value_or(1) != 0);
    for (const std::string* part : {&uri->scheme, &uri->host, &uri->path})
      FUZZ_CHECK(part->find('\0') == part->npos);
  }
  if (const auto address = transport::Address::parse(text)) {
    FUZZ_CHECK(address->is_unix() ? address->host.empty() : !address->host.empty());
    (void)address->to_string();
    if (address->is_unix()) (void)transport::unix_address(address->path);
  }
  if (const auto remote = store::RemoteAddress::parse(text)) {
    const auto again = store::RemoteAddress::parse(remote->to_string());
    FUZZ_CHECK(again.ok());
    FUZZ_CHECK(again->host == remote->host && again->port == remote->port);
    FUZZ_CHECK(again->socket_path == remote->socket_path);
    FUZZ_CHECK(again->export_name == remote->export_name);
    FUZZ_CHECK(again->to_string() == remote->to_string());
  }
  if (const auto filtered = store::FilteredUri::parse(text)) {
    // What is left has no filter in it, and no option of one.
    const auto again = store::FilteredUri::parse(filtered->base);
    FUZZ_CHECK(again.ok() && again->filters.empty() && again->base == filtered->base);
  }
  if (const auto spec = store::Spec::parse(text)) {
    FUZZ_CHECK(spec->kind == store::Spec::Kind::kMem ? spec->size.has_value()
                                                     : !spec->path.empty());
    FUZZ_CHECK(spec->size.value_or(1) != 0 && spec->size.value_or(1) <= INT64_MAX);
    const auto again = store::Spec::parse(spec->base);
    FUZZ_CHECK(again.ok() && again->kind == spec->kind && again->path == spec->path);
    FUZZ_CHECK(again->size == spec->size && again->chunk == spec->chunk && again->filters.empty());
  }
  if (const auto exported = server::ExportSpec::parse(text)) {
    FUZZ_CHECK(!exported->name.empty() && exported->name.find('/') == std::string::npos);
    FUZZ_CHECK(text.starts_with(exported->name + "="));
  }
}
