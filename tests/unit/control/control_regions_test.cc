// SPDX-License-Identifier: MIT
#include <nlohmann/json.hpp>

#include "control/verbs.hh"
#include "fakes.hh"
#include "support/temp_dir.hh"

namespace rmem::control {
namespace {

class RegionsTest : public testing::Test {
 protected:
  void SetUp() override {
    reactor = std::move(Reactor::create().value());
    pager = std::make_unique<pager::Pager>(channel, pager::Pager::Options{}, [](auto) {});
    restart();
  }

  // As a new daemon would begin: without memory.
  void restart() {
    regions.reset();
    regions = std::make_unique<Regions>(*reactor, module, *pager, sources, "default",
                                        Recordings(dir / "state/recordings"));
    verbs = std::make_unique<Verbs>(*regions, sources, "default", defaults);
  }

  AttachOptions options(const std::string& name = "data") {
    AttachOptions o;
    o.name = name;
    o.source = "rmem://host/x";
    return o;
  }

  // Lets everything posted happen.
  void turn() {
    for (int i = 0; i < 4; ++i) {
      pager->tick();
      reactor->post([this] { reactor->stop(); });
      reactor->run();
    }
  }
  void wait(std::chrono::milliseconds time) {
    Reactor::Timer timer(*reactor, [this] { reactor->stop(); });
    timer.arm(time);
    reactor->run();
  }

  Status adopt(std::chrono::milliseconds patience = std::chrono::seconds(10)) {
    return regions->adopt([this] { reactor->stop(); }, patience);
  }
  Result<Regions::Attached> attach(const AttachOptions& o) {
    Result<Regions::Attached> result = Status(Code::kTimeout, "no answer");
    regions->attach(o, [&](Result<Regions::Attached> r) { result = std::move(r); });
    turn();
    return result;
  }
  Result<Regions::Detached> detach(const std::string& name, bool force = false) {
    Result<Regions::Detached> result = Status(Code::kTimeout, "no answer");
    regions->detach(name, force, [&](Result<Regions::Detached> r) { result = std::move(r); });
    turn();
    return result;
  }
  Status sync(const std::string& name) {
    Status result(Code::kTimeout, "no answer");
    regions->sync(name, [&](const Status& s) { result = s; });
    turn();
    return result;
  }
  nlohmann::json ask(nlohmann::json request, const Peer& peer = {}) {
    nlohmann::json reply;
    request = nlohmann::json::parse(request.dump());  // as it comes off a socket
    verbs->handle(peer, request, [&](nlohmann::json r) { reply = std::move(r); });
    turn();
    return reply;
  }

  test::TempDir dir;
  std::unique_ptr<Reactor> reactor;
  NoChannel channel;
  FakeModule module;
  FakeSources sources;
  Script& script = sources.script;
  std::unique_ptr<pager::Pager> pager;
  std::unique_ptr<Regions> regions;
  AttachOptions defaults;
  std::unique_ptr<Verbs> verbs;
};

TEST_F(RegionsTest, AttachMakesServesAndClaims) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok()) << r.status().cause();
  EXPECT_TRUE(r->made);
  EXPECT_EQ(r->size, 1u << 20);
  const kchan::RegionInfo& info = module.regions.at(r->id);
  EXPECT_EQ(info.size, 1u << 20);
  EXPECT_EQ(info.chunk, 256u << 10);
  EXPECT_EQ(info.folio_order, 4);  // 64 KiB
  EXPECT_EQ(info.mode, 0600u);
  EXPECT_EQ(info.source, "rmem://host/x");
  EXPECT_EQ(script.claims, 1);
  EXPECT_EQ(script.last_claim.writer, info.writer);
  EXPECT_FALSE(script.last_claim.take_over);
  EXPECT_EQ(channel.states[r->id], static_cast<unsigned>(RMEM_STATE_ACTIVE));
  const auto notes = Notes::from_blob(info.blob);
  ASSERT_TRUE(notes.ok());
  EXPECT_EQ(notes->claim_generation, 42u);
  EXPECT_EQ(notes->identity, script.geometry.identity);
}

TEST_F(RegionsTest, ReadOnlyNeedsNoClaimAndTakesLargeFolios) {
  AttachOptions o = options();
  o.read_only = true;
  const auto r = attach(o);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(script.claims, 0);
  EXPECT_TRUE(module.regions.at(r->id).read_only());
  EXPECT_EQ(module.regions.at(r->id).folio_order, 6);  // 256 KiB
  EXPECT_TRUE(script.last_options.read_only);
}

TEST_F(RegionsTest, FoliosAreNeverLargerThanTheChunk) {
  AttachOptions o = options();
  o.chunk = 4096;
  const auto r = attach(o);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(module.regions.at(r->id).folio_order, 0);
}

TEST_F(RegionsTest, TheSameAttachAgainIsFine) {
  ASSERT_TRUE(attach(options()).ok());
  const auto again = attach(options());
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->made);
  EXPECT_EQ(script.opened, 1);
  AttachOptions take = options();
  take.take_over = true;  // about one attach, not about the region
  EXPECT_TRUE(attach(take).ok());
}

TEST_F(RegionsTest, AnotherAttachOfTheNameIsBusy) {
  ASSERT_TRUE(attach(options()).ok());
  AttachOptions o = options();
  o.chunk = 4096;
  EXPECT_EQ(attach(o).status().code(), Code::kBusy);
  o = options();
  o.source = "rmem://host/y";
  EXPECT_EQ(attach(o).status().code(), Code::kBusy);
  o = options();
  o.bind = "/srv/x";
  EXPECT_EQ(attach(o).status().code(), Code::kBusy);
}

TEST_F(RegionsTest, FailedOpensKeepTheirCode) {
  for (Code code : {Code::kUnreachable, Code::kNotFound, Code::kFailed, Code::kCorrupt}) {
    script.open_result = Status(code, "why");
    EXPECT_EQ(attach(options()).status().code(), code);
    EXPECT_TRUE(module.regions.empty());
    EXPECT_EQ(script.alive, 0);
  }
  script.open_result = Status();
  EXPECT_TRUE(attach(options()).ok());
}

TEST_F(RegionsTest, WritingToAReadOnlyExportIsRefused) {
  script.geometry.read_only = true;
  EXPECT_EQ(attach(options()).status().code(), Code::kPermission);
  AttachOptions o = options();
  o.read_only = true;
  EXPECT_TRUE(attach(o).ok());
}

TEST_F(RegionsTest, SecondWriterUnmakesTheRegionAgain) {
  script.claim_result = Status(Code::kBusy, "another writer has it");
  const auto r = attach(options());
  EXPECT_EQ(r.status().code(), Code::kBusy);
  EXPECT_TRUE(module.regions.empty());
  EXPECT_EQ(script.alive, 0);
}

TEST_F(RegionsTest, ConnectionLostBeforeTheClaimIsUnreachable) {
  script.claim_result = Status(Code::kFailed, "lost", {}, EAGAIN);
  EXPECT_EQ(attach(options()).status().code(), Code::kUnreachable);
}

TEST_F(RegionsTest, TakeOverIsPassedOn) {
  AttachOptions o = options();
  o.take_over = true;
  ASSERT_TRUE(attach(o).ok());
  EXPECT_TRUE(script.last_claim.take_over);
}

TEST_F(RegionsTest, WhileAttachingTheNameIsBusy) {
  script.hold_open = true;
  Result<Regions::Attached> first = Status(Code::kTimeout, "");
  regions->attach(options(), [&](auto r) { first = std::move(r); });
  EXPECT_EQ(attach(options()).status().code(), Code::kBusy);
  EXPECT_EQ(sync("data").code(), Code::kBusy);
  EXPECT_EQ(detach("data").status().code(), Code::kBusy);
  script.continue_open();
  EXPECT_TRUE(first.ok());
}

TEST_F(RegionsTest, LossAndReturnReachTheKernel) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  script.listener->on_down(Status(Code::kUnreachable, "host:7070: connection refused"));
  EXPECT_EQ(channel.states[r->id], static_cast<unsigned>(RMEM_STATE_DEGRADED));
  EXPECT_EQ(channel.reasons[r->id], "host:7070: connection refused");
  script.listener->on_up();
  EXPECT_EQ(channel.states[r->id], static_cast<unsigned>(RMEM_STATE_ACTIVE));
  script.listener->on_failed(Status(Code::kCorrupt, "another identity", {}, ESTALE));
  EXPECT_EQ(channel.states[r->id], static_cast<unsigned>(RMEM_STATE_FAILED));
  EXPECT_EQ(sync("data").code(), Code::kOk);  // nothing was dirty
  module.sync_result = Status(Code::kCorrupt, "", {}, ESTALE);
  EXPECT_EQ(sync("data").code(), Code::kCorrupt);
}

TEST_F(RegionsTest, FailedSyncIsExplained) {
  ASSERT_TRUE(attach(options()).ok());
  module.sync_result = Status(Code::kFailed, "no space", {}, ENOSPC);
  EXPECT_EQ(sync("data").code(), Code::kFailed);
  module.sync_result = Status(Code::kFailed, "eio", {}, EIO);
  // The connection stands and the store has refused nothing: it did not answer.
  EXPECT_EQ(sync("data").code(), Code::kUnreachable);
  script.listener->on_down(Status(Code::kUnreachable, "refused"));
  const Status gone = sync("data");
  EXPECT_EQ(gone.code(), Code::kUnreachable);
  EXPECT_NE(gone.cause().find("refused"), std::string::npos);
}

TEST_F(RegionsTest, UnknownRegionIsNotFound) {
  EXPECT_EQ(sync("none").code(), Code::kNotFound);
  EXPECT_EQ(detach("none").status().code(), Code::kNotFound);
}

TEST_F(RegionsTest, DetachSyncsUnmakesAndReleases) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  const auto d = detach("data");
  ASSERT_TRUE(d.ok());
  EXPECT_TRUE(d->warning.empty());
  EXPECT_EQ(module.syncs.size(), 1u);
  EXPECT_TRUE(module.regions.empty());
  EXPECT_EQ(script.released, 1);
  EXPECT_EQ(script.alive, 0);
  EXPECT_TRUE(attach(options()).ok());  // the name is free again
}

TEST_F(RegionsTest, DetachOfABusyRegionPushesAndLeavesIt) {
  ASSERT_TRUE(attach(options()).ok());
  module.in_use = true;
  EXPECT_EQ(detach("data").status().code(), Code::kBusy);
  EXPECT_EQ(module.syncs.size(), 1u);
  EXPECT_EQ(script.released, 0);
  EXPECT_TRUE(sync("data").ok());  // still served
  module.in_use = false;
  EXPECT_TRUE(detach("data").ok());
}

TEST_F(RegionsTest, DetachThatCannotPushLeavesTheRegion) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  script.listener->on_down(Status(Code::kUnreachable, "refused"));
  module.sync_result = Status(Code::kFailed, "eio", {}, EIO);
  module.regions.at(r->id).dirty_bytes = 4096;
  EXPECT_EQ(detach("data").status().code(), Code::kUnreachable);
  EXPECT_EQ(module.regions.size(), 1u);
}

TEST_F(RegionsTest, DetachByForcePushesWhatItCan) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  module.in_use = true;
  const auto d = detach("data", true);
  ASSERT_TRUE(d.ok());
  EXPECT_EQ(d->lost_bytes, 0u);
  EXPECT_EQ(module.syncs.size(), 1u);
  EXPECT_TRUE(module.regions.empty());
  EXPECT_EQ(script.released, 1);
  EXPECT_EQ(script.alive, 0);
}

TEST_F(RegionsTest, DetachByForceTellsWhatIsLost) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  module.sync_result = Status(Code::kFailed, "eio", {}, EIO);
  module.regions.at(r->id).dirty_bytes = 4096;
  const auto d = detach("data", true);
  ASSERT_TRUE(d.ok());
  EXPECT_EQ(d->lost_bytes, 4096u);
  EXPECT_TRUE(module.regions.empty());
}

TEST_F(RegionsTest, DetachByForceWaitsForNoStore) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  script.listener->on_down(Status(Code::kUnreachable, "refused"));
  module.hold = true;
  bool synced = false;
  regions->sync("data", [&](const Status&) { synced = true; });
  EXPECT_TRUE(detach("data", true).ok());
  EXPECT_TRUE(module.regions.empty());
  EXPECT_FALSE(synced);
  module.held[0](Status(Code::kFailed, "eio", {}, EIO));  // as the kernel then answers
  module.held.clear();
  turn();
  EXPECT_TRUE(synced);
  EXPECT_EQ(script.alive, 0);
}

TEST_F(RegionsTest, DetachTellsWhenTheClaimStays) {
  ASSERT_TRUE(attach(options()).ok());
  script.release_result = Status(Code::kUnreachable, "refused");
  const auto d = detach("data");
  ASSERT_TRUE(d.ok());
  EXPECT_NE(d->warning.find("--take-over"), std::string::npos);
}

TEST_F(RegionsTest, ServerThatNeverAcceptsTheReleaseDoesNotHoldUpDetach) {
  ASSERT_TRUE(attach(options()).ok());
  script.hold_release = true;
  Result<Regions::Detached> result = Status(Code::kTimeout, "");
  regions->detach("data", false, [&](auto r) { result = std::move(r); });
  wait(std::chrono::milliseconds(3200));
  ASSERT_TRUE(result.ok());
  EXPECT_FALSE(result->warning.empty());
  script.continue_release();  // too late, and harmless
  turn();
  EXPECT_EQ(script.alive, 0);
}

TEST_F(RegionsTest, DetachWaitsForASyncUnderWay) {
  ASSERT_TRUE(attach(options()).ok());
  module.hold = true;
  bool synced = false, detached = false;
  regions->sync("data", [&](const Status&) { synced = true; });
  regions->detach("data", false, [&](auto) { detached = true; });
  EXPECT_EQ(module.held.size(), 1u);
  EXPECT_EQ(sync("data").code(), Code::kBusy);  // it is being detached
  module.hold = false;
  module.held[0](Status());
  turn();
  EXPECT_TRUE(synced);
  EXPECT_TRUE(detached);
}

TEST_F(RegionsTest, ReadOnlyDetachNeitherSyncsNorReleases) {
  AttachOptions o = options();
  o.read_only = true;
  ASSERT_TRUE(attach(o).ok());
  ASSERT_TRUE(detach("data").ok());
  EXPECT_TRUE(module.syncs.empty());
  EXPECT_EQ(script.released, 0);
}

TEST_F(RegionsTest, AdoptionWaitsForNoServer) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  restart();
  turn();
  channel.states.clear();
  ASSERT_TRUE(adopt().ok());
  EXPECT_EQ(script.opened, 1);  // only the first daemon's
  EXPECT_EQ(script.resumed, 1);
  EXPECT_EQ(script.last_claim.generation, 42u);
  EXPECT_EQ(script.last_claim.writer, module.regions.at(r->id).writer);
  ASSERT_TRUE(script.last_options.expected);
  EXPECT_EQ(script.last_options.expected->identity, script.geometry.identity);
  EXPECT_EQ(script.last_options.expected->size, 1u << 20);
  EXPECT_EQ(module.served.size(), 2u);
  EXPECT_EQ(channel.states[r->id], static_cast<unsigned>(RMEM_STATE_DEGRADED));
  script.listener->on_up();
  EXPECT_EQ(channel.states[r->id], static_cast<unsigned>(RMEM_STATE_ACTIVE));
  EXPECT_FALSE(attach(options())->made);  // and it knows its options
}

TEST_F(RegionsTest, AdoptsOnlyItsOwnInstance) {
  ASSERT_TRUE(attach(options()).ok());
  regions = std::make_unique<Regions>(*reactor, module, *pager, sources, "other",
                                      Recordings(dir / "state/recordings"));
  ASSERT_TRUE(adopt().ok());
  EXPECT_EQ(script.resumed, 0);
  EXPECT_EQ(sync("data").code(), Code::kBusy);
  EXPECT_EQ(detach("data").status().code(), Code::kBusy);
  EXPECT_EQ(attach(options()).status().code(), Code::kBusy);
}

// kill -9, and the next daemon is there before the kernel has ended the first.
TEST_F(RegionsTest, AdoptsWhatADyingDaemonLetsGoOf) {
  ASSERT_TRUE(attach(options()).ok());
  restart();
  turn();
  module.serve_error = EBUSY;
  module.serve_errors = 3;
  ASSERT_TRUE(adopt().ok());
  EXPECT_EQ(script.resumed, 0);
  reactor->run();  // until it has settled
  EXPECT_EQ(script.resumed, 1);
}

TEST_F(RegionsTest, RegionServedByAnotherDaemonIsLeftAlone) {
  ASSERT_TRUE(attach(options("other")).ok());
  const auto held = attach(options("held"));
  ASSERT_TRUE(held.ok());
  restart();
  turn();
  module.serve_error = EBUSY;
  module.serve_error_from = held->id;
  ASSERT_TRUE(adopt(std::chrono::milliseconds(200)).ok());
  EXPECT_EQ(script.resumed, 1) << "the other one does not wait for it";
  reactor->run();
  EXPECT_EQ(script.resumed, 1);
  EXPECT_EQ(sync("held").code(), Code::kBusy);
}

TEST_F(RegionsTest, RegionThatGoesWhileItIsHeldIsForgotten) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  restart();
  turn();
  module.serve_error = EBUSY;
  ASSERT_TRUE(adopt().ok());
  module.regions.erase(r->id);
  reactor->run();
  EXPECT_EQ(script.resumed, 0);
  EXPECT_EQ(sync("data").code(), Code::kNotFound);
}

TEST_F(RegionsTest, UnreadableNotesDoNotStopTheOthers) {
  const auto first = attach(options("a"));
  ASSERT_TRUE(attach(options("b")).ok());
  module.regions.at(first->id).blob = "garbage";
  restart();
  turn();
  ASSERT_TRUE(adopt().ok());
  EXPECT_EQ(script.resumed, 1);
  EXPECT_TRUE(detach("a").ok());  // it can still be unmade
}

TEST_F(RegionsTest, FailedRegionStaysFailedAndCanBeDetached) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  module.regions.at(r->id).state = RMEM_STATE_FAILED;
  module.regions.at(r->id).reason = "another store";
  restart();
  turn();
  ASSERT_TRUE(adopt().ok());
  EXPECT_EQ(script.resumed, 0);
  EXPECT_EQ(attach(options()).status().code(), Code::kCorrupt);
  module.sync_result = Status(Code::kCorrupt, "", {}, ESTALE);
  EXPECT_TRUE(detach("data").ok());  // nothing dirty: nothing to lose
}

TEST_F(RegionsTest, LastPushSyncsWhatIsReachable) {
  const auto a = attach(options("a"));
  const auto b = attach(options("b"));
  const auto c = attach(options("c"));
  module.regions.at(a->id).dirty_bytes = 4096;
  module.regions.at(c->id).dirty_bytes = 4096;
  script.listener->on_down(Status(Code::kUnreachable, "c's server"));
  bool done = false;
  regions->push_all(std::chrono::seconds(10), [&] { done = true; });
  turn();
  EXPECT_TRUE(done);
  EXPECT_EQ(module.syncs, std::vector<std::string>{"a"});
}

TEST_F(RegionsTest, LastPushHasADeadline) {
  const auto a = attach(options("a"));
  module.regions.at(a->id).dirty_bytes = 4096;
  module.hold = true;
  int done = 0;
  regions->push_all(std::chrono::milliseconds(50), [&] { ++done; });
  turn();
  EXPECT_EQ(done, 0);
  wait(std::chrono::milliseconds(100));
  EXPECT_EQ(done, 1);
  module.held[0](Status());
  EXPECT_EQ(done, 1);
}

TEST_F(RegionsTest, VerbsAnswerMistakes) {
  EXPECT_EQ(ask({{"verb", "dance"}})["error"]["code"], 2);
  EXPECT_EQ(ask({{"verb", 7}})["error"]["code"], 2);
  EXPECT_EQ(ask(nlohmann::json::object())["error"]["code"], 2);
  EXPECT_EQ(ask({{"verb", "sync"}})["error"]["code"], 2);
  EXPECT_EQ(ask({{"verb", "sync"}, {"name", "../x"}})["error"]["code"], 2);
  EXPECT_EQ(ask({{"verb", "sync"}, {"name", "x"}, {"force", true}})["error"]["code"], 2);
  EXPECT_EQ(ask({{"verb", "sync"}, {"name", "x"}})["error"]["code"], 3);
  EXPECT_EQ(ask({{"verb", "attach"}, {"name", "a"}, {"source", "bad:x"}})["error"]["code"], 2);
  EXPECT_EQ(ask({{"verb", "attach"}, {"name", "a b"}, {"source", "x"}})["error"]["code"], 2);
  EXPECT_EQ(ask({{"verb", "attach"}, {"name", "a"}, {"source", "x"}, {"evict_limit", 1}})["error"]
                                                                                         ["cause"],
            "control request: `evict_limit' is not known here");
  EXPECT_TRUE(module.regions.empty());
}

TEST_F(RegionsTest, VerbsAnswer) {
  const auto made = ask({{"verb", "attach"}, {"name", "a"}, {"source", "rmem://h/x"}});
  EXPECT_EQ(made["ok"], true);
  EXPECT_EQ(made["made"], true);
  EXPECT_EQ(made["size_bytes"], 1 << 20);
  EXPECT_EQ(ask({{"verb", "ping"}})["instance"], "default");
  const auto status = ask({{"verb", "status"}});
  EXPECT_EQ(status["regions"][0]["name"], "a");
  EXPECT_EQ(status["regions"][0]["up"], true);
  EXPECT_EQ(status["regions"][0]["lanes"], 2);
  EXPECT_EQ(ask({{"verb", "drop"}, {"name", "a"}})["ok"], true);
  EXPECT_EQ(ask({{"verb", "sync"}, {"name", "a"}})["ok"], true);
  EXPECT_EQ(ask({{"verb", "detach"}, {"name", "a"}})["ok"], true);
}

TEST_F(RegionsTest, OnlyRootLendsTheDaemonsRights) {
  Peer user;
  user.uid = 1000;
  user.gid = 1000;
  user.groups = {1000, 44};
  const auto attach_as = [&](const Peer& peer, const nlohmann::json& more) {
    nlohmann::json request = {{"verb", "attach"}, {"name", "a"}, {"source", "rmem://h/x"}};
    request.update(more);
    return ask(request, peer)["error"].value("code", 0);
  };
  EXPECT_EQ(attach_as(user, {{"source", "file:///etc/shadow"}}), 4);
  EXPECT_EQ(attach_as(user, {{"bind", "/etc/passwd"}}), 4);
  EXPECT_EQ(attach_as(user, {{"uid", 0}}), 4);
  EXPECT_EQ(attach_as(user, {{"gid", 7}}), 4);
  EXPECT_TRUE(module.regions.empty());
}

TEST_F(RegionsTest, OwnerIsTheCallerUnlessSaid) {
  Peer user;
  user.uid = 1000;
  user.gid = 100;
  user.groups = {100, 44};
  ask({{"verb", "attach"}, {"name", "a"}, {"source", "rmem://h/x"}}, user);
  EXPECT_EQ(module.get("a")->uid, 1000u);
  EXPECT_EQ(module.get("a")->gid, 100u);
  ask({{"verb", "attach"}, {"name", "b"}, {"source", "rmem://h/x"}, {"gid", 44}}, user);
  EXPECT_EQ(module.get("b")->gid, 44u);
  ask({{"verb", "attach"}, {"name", "c"}, {"source", "file:///x"}, {"uid", 5}, {"gid", 6}});
  EXPECT_EQ(module.get("c")->uid, 5u);
}

// As after SIGTERM: what is under way ends in the middle, with an answer.
TEST_F(RegionsTest, MayEndWhileRegionsAreBeingAttached) {
  sources.script.hold_open = true;
  std::vector<Status> ends;
  for (const char* name : {"a", "b", "c"})
    regions->attach(options(name),
                    [&](const auto& attached) { ends.push_back(attached.status()); });
  regions.reset();
  turn();
  ASSERT_EQ(ends.size(), 3u);
  for (const Status& end : ends) EXPECT_EQ(end.code(), Code::kUnreachable);
}

// --- pulling, and what was recorded ---------------------------------------------------

TEST_F(RegionsTest, PullAllBeginsWithTheAttachAndAfterARestart) {
  AttachOptions o = options();
  o.pull = "all";
  const auto r = attach(o);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(pager->puller(r->id)->done() + pager->puller(r->id)->active(), 1u);
  pager->remove(r->id, [] {});  // whose store goes with the daemon
  restart();
  ASSERT_TRUE(adopt().ok());
  reactor->run();
  ASSERT_NE(pager->puller(r->id), nullptr);
  EXPECT_EQ(pager->puller(r->id)->done() + pager->puller(r->id)->active(), 1u);
}

TEST_F(RegionsTest, RatesMayChangeAndOutliveTheDaemon) {
  AttachOptions o = options();
  o.pull_rate = 1000;
  const auto r = attach(o);
  ASSERT_TRUE(r.ok());
  const auto rates = [&] {
    const auto region = ask({{"verb", "status"}})["regions"][0];
    return std::pair(region["pull_rate"].get<int>(), region["push_rate"].get<int>());
  };
  EXPECT_EQ(rates(), std::pair(1000, 0));
  EXPECT_TRUE(ask({{"verb", "limit"}, {"name", "data"}, {"push_rate", 7}})["ok"]);
  EXPECT_EQ(rates(), std::pair(1000, 7));
  EXPECT_TRUE(ask({{"verb", "limit"}, {"name", "data"}, {"pull_rate", 0}})["ok"]);
  EXPECT_EQ(rates(), std::pair(0, 7));
  EXPECT_EQ(ask({{"verb", "limit"}, {"name", "data"}, {"pull_rate", -1}})["error"]["code"],
            static_cast<int>(Code::kUsage));
  EXPECT_EQ(ask({{"verb", "limit"}, {"name", "nobody"}})["error"]["code"],
            static_cast<int>(Code::kNotFound));
  // As it was attached: that is no other region.
  const auto again = attach(o);
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->made);
  pager->remove(r->id, [] {});  // whose store goes with the daemon
  restart();
  ASSERT_TRUE(adopt().ok());
  reactor->run();
  EXPECT_EQ(rates(), std::pair(0, 7));
}

TEST_F(RegionsTest, WhatIsRecordedIsPulledInThatOrder) {
  const auto r = attach(options());
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(ask({{"verb", "record"}, {"name", "data"}, {"stop", true}})["error"]["code"],
            static_cast<int>(Code::kUsage));
  EXPECT_TRUE(ask({{"verb", "record"}, {"name", "data"}})["ok"]);
  EXPECT_EQ(module.syncs, std::vector<std::string>{"data"});
  EXPECT_EQ(module.drops, std::vector<std::string>{"data"});
  EXPECT_EQ(ask({{"verb", "status"}})["regions"][0]["recording"]["chunks"], 0);
  for (const std::uint64_t chunk : {3, 0}) {
    rmem_request miss{};
    miss.region_id = r->id;
    miss.op = RMEM_OP_MISS;
    miss.offset = chunk * (256 << 10);
    miss.length = 256 << 10;
    pager->accept(miss);
  }
  // A detach keeps it, too.
  ASSERT_TRUE(detach("data").ok());
  const auto kept = Recordings(dir / "state/recordings").find(script.geometry.identity, 1 << 20);
  ASSERT_TRUE(kept.ok()) << kept.status().cause();
  EXPECT_EQ(*kept, (std::vector<pager::Range>{{3 * (256 << 10), 256 << 10}, {0, 256 << 10}}));

  AttachOptions o = options("other");
  o.pull = "recorded";
  o.chunk = 64 << 10;
  const auto again = attach(o);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(pager->puller(again->id)->done() + pager->puller(again->id)->active(), 1u);
}

TEST_F(RegionsTest, WhatIsPulledCannotBeRecorded) {
  AttachOptions o = options();
  o.pull = "all";
  const auto r = attach(o);
  ASSERT_TRUE(r.ok());
  pager->disconnect(r->id, "so that the pull goes on");
  pager->pull(r->id, {{0, 4096}});
  const auto reply = ask({{"verb", "record"}, {"name", "data"}});
  EXPECT_EQ(reply["error"]["code"], static_cast<int>(Code::kBusy));
  EXPECT_FALSE(pager->recorded(r->id));
}

TEST_F(RegionsTest, NothingRecordedIsNoReasonNotToAttach) {
  AttachOptions o = options();
  o.pull = "recorded";
  const auto r = attach(o);
  ASSERT_TRUE(r.ok());
  EXPECT_FALSE(pager->puller(r->id)->active());
  EXPECT_EQ(pager->puller(r->id)->done(), 0u);
}

TEST_F(RegionsTest, PullIsOneOfThree) {
  AttachOptions o = options();
  o.pull = "some";
  EXPECT_EQ(attach(o).status().code(), Code::kUsage);
}

TEST(RecordingsTest, WhatIsDamagedIsRefused) {
  const Uuid store = uuid_random();
  const std::string good = recording_to_json(store, 8192, {{4096, 4096}, {0, 1}});
  const auto code = [&](const std::string& text, std::uint64_t size = 8192) {
    return recording_from_json(text, store, size).status().code();
  };
  EXPECT_EQ(code(good), Code::kOk);
  EXPECT_EQ(code(good, 4096), Code::kCorrupt);
  EXPECT_EQ(recording_from_json(good, uuid_random(), 8192).status().code(), Code::kCorrupt);
  EXPECT_EQ(code(good.substr(0, good.size() / 2)), Code::kCorrupt);
  EXPECT_EQ(code("[]"), Code::kCorrupt);
  for (const char* ranges :
       {"[[0,0]]", "[[8192,1]]", "[[1,8192]]", "[[0,18446744073709551615]]", "[[-1,1]]", "[[0]]",
        "[[0,1,2]]", "[0,1]", "[[0.5,1]]", "{}", "null", "[[\"0\",1]]"}) {
    auto document = nlohmann::json::parse(good);
    document["ranges"] = nlohmann::json::parse(ranges);
    EXPECT_EQ(code(document.dump()), Code::kCorrupt) << ranges;
  }
}

TEST(RecordingsTest, AreReplacedByWhatIsNotEmpty) {
  test::TempDir dir;
  const Recordings recordings(dir / "a/b");
  const Uuid store = uuid_random();
  EXPECT_TRUE(recordings.find(store, 8192)->empty());
  ASSERT_TRUE(recordings.keep(store, 8192, {{0, 4096}}).ok());
  ASSERT_TRUE(recordings.keep(store, 8192, {{4096, 4096}}).ok());
  EXPECT_EQ(*recordings.find(store, 8192), (std::vector<pager::Range>{{4096, 4096}}));
  EXPECT_EQ(recordings.find(store, 4096).status().code(), Code::kCorrupt);
  ASSERT_TRUE(recordings.keep(store, 8192, {}).ok());
  EXPECT_EQ(recordings.find(store, 8192)->size(), 1u);
}

}  // namespace
}  // namespace rmem::control
