// SPDX-License-Identifier: MIT
#include "wire/codec.hh"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "base/bytes.hh"
#include "base/crc32c.hh"

namespace rmem::wire {
namespace {

Header full_header() {
  Header header;
  header.type = Type::kRead;
  header.flags = flag::kReply | flag::kChecksum;
  header.request = 0x1122334455667788;
  header.handle = 3;
  header.generation = 0x99aabbcc;
  header.offset = 0x0102030405060708;
  header.length = 4096;
  header.payload = 4096;
  header.checksum = 0xdeadbeef;
  header.epoch = 0xfedcba9876543210;
  header.error = error::kNoSpace;
  return header;
}

HeaderBytes encoded(const Header& header) {
  HeaderBytes bytes;
  encode(header, bytes);
  return bytes;
}

// Changes a field and makes the header's checksum fit again.
template <class T>
HeaderBytes with(HeaderBytes bytes, std::size_t at, T value) {
  store_le(bytes.data() + at, value);
  store_le(bytes.data() + 60, crc32c(std::span(bytes).first(60)));
  return bytes;
}

Flaw flaw_of(const HeaderBytes& bytes) {
  Header header;
  return decode(bytes, kVersionMax, header);
}

TEST(Header, SurvivesItsBytes) {
  Header back;
  ASSERT_EQ(decode(encoded(full_header()), kVersionMax, back), Flaw::kNone);
  EXPECT_EQ(back, full_header());
}

TEST(Header, CompressedPayloadsAreThoseOfReadRepliesAndWritesAndShorter) {
  Header reply;
  reply.type = Type::kRead;
  reply.flags = flag::kReply | flag::kLz4;
  reply.length = 65536;
  reply.payload = 100;
  EXPECT_EQ(flaw_of(encoded(reply)), Flaw::kNone);
  Header write = reply;
  write.type = Type::kWrite;
  write.flags = flag::kZstd;
  EXPECT_EQ(flaw_of(encoded(write)), Flaw::kNone);

  const auto refused = [](Header header, auto change) {
    change(header);
    return flaw_of(encoded(header)) == Flaw::kFlags;
  };
  EXPECT_TRUE(refused(reply, [](Header& h) { h.flags |= flag::kZstd; }));
  EXPECT_TRUE(refused(reply, [](Header& h) { h.flags &= ~flag::kReply; }));
  EXPECT_TRUE(refused(reply, [](Header& h) { h.flags |= flag::kZeros; }));
  EXPECT_TRUE(refused(reply, [](Header& h) { h.error = error::kIo; }));
  EXPECT_TRUE(refused(reply, [](Header& h) { h.payload = 0; }));
  EXPECT_TRUE(refused(reply, [](Header& h) { h.payload = 65536; }));
  EXPECT_TRUE(refused(reply, [](Header& h) { h.length = kMaxPayload + 1; }));
  EXPECT_TRUE(refused(reply, [](Header& h) { h.type = Type::kFlush; }));
  EXPECT_TRUE(refused(write, [](Header& h) { h.flags |= flag::kReply; }));
}

TEST(Header, LiesInMemoryAsTheDocumentSays) {
  const HeaderBytes bytes = encoded(full_header());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), 4), "rmem");
  EXPECT_EQ(bytes[4], std::byte{1});
  EXPECT_EQ(bytes[5], std::byte{5});
  EXPECT_EQ(load_le<std::uint16_t>(&bytes[6]), 3u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[8]), 0x1122334455667788u);
  EXPECT_EQ(load_le<std::uint32_t>(&bytes[16]), 3u);
  EXPECT_EQ(load_le<std::uint32_t>(&bytes[20]), 0x99aabbccu);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[24]), 0x0102030405060708u);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[32]), 4096u);
  EXPECT_EQ(load_le<std::uint32_t>(&bytes[40]), 4096u);
  EXPECT_EQ(load_le<std::uint32_t>(&bytes[44]), 0xdeadbeefu);
  EXPECT_EQ(load_le<std::uint64_t>(&bytes[48]), 0xfedcba9876543210u);
  EXPECT_EQ(load_le<std::uint32_t>(&bytes[56]), 28u);
}

TEST(Header, EveryFlippedBitIsNoticed) {
  const HeaderBytes good = encoded(full_header());
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    HeaderBytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_NE(flaw_of(bad), Flaw::kNone) << "bit " << bit;
  }
}

TEST(Header, AnotherProtocolIsTold) {
  EXPECT_EQ(flaw_of(with(encoded(full_header()), 0, std::uint32_t{0x20544547})), Flaw::kMagic);
}

TEST(Header, AnotherVersionIsToldEvenIfItsChecksumIsElsewhere) {
  HeaderBytes bytes = encoded(full_header());
  bytes[4] = std::byte{9};
  EXPECT_EQ(flaw_of(bytes), Flaw::kVersion);
}

TEST(Header, HelloAndRefuseKeepTheirVersion) {
  Header header;
  header.type = Type::kHello;
  header.version = kHelloVersion;
  Header back;
  EXPECT_EQ(decode(encoded(header), 7, back), Flaw::kNone);
  header.type = Type::kPing;
  EXPECT_EQ(decode(encoded(header), 7, back), Flaw::kVersion);
}

TEST(Header, UnknownFlagIsRefused) {
  EXPECT_EQ(flaw_of(with(encoded(full_header()), 6, std::uint16_t{0x8001})), Flaw::kFlags);
}

TEST(Header, ChecksumNeedsItsFlagAndAPayload) {
  Header header = full_header();
  header.flags = flag::kReply;
  EXPECT_EQ(flaw_of(encoded(header)), Flaw::kFlags);
  header = full_header();
  header.payload = 0;
  EXPECT_EQ(flaw_of(encoded(header)), Flaw::kFlags);
}

TEST(Header, RequestsCarryNoErrorAndNoEpoch) {
  Header header = full_header();
  header.flags = flag::kChecksum;
  EXPECT_EQ(flaw_of(encoded(header)), Flaw::kReserved);
  header.error = 0;
  EXPECT_EQ(flaw_of(encoded(header)), Flaw::kReserved);
  header.epoch = 0;
  EXPECT_EQ(flaw_of(encoded(header)), Flaw::kNone);
}

TEST(Header, RandomBytesAreNoFrame) {
  std::mt19937 random(11);
  for (int i = 0; i < 10'000; ++i) {
    HeaderBytes bytes;
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    if (i % 2) store_le(bytes.data(), kMagic);
    EXPECT_NE(flaw_of(bytes), Flaw::kNone);
  }
}

TEST(Glance, FirstWrongByteIsEnough) {
  const HeaderBytes good = encoded(full_header());
  for (std::size_t length = 0; length <= good.size(); ++length)
    EXPECT_EQ(glance(std::span(good).first(length)), Flaw::kNone);
  EXPECT_EQ(glance(std::as_bytes(std::span("G", 1))), Flaw::kMagic);
  EXPECT_EQ(glance(std::as_bytes(std::span("rmeX", 4))), Flaw::kMagic);
}

Hello full_hello() {
  Hello hello;
  hello.version = 1;
  hello.role = Role::kBulk;
  hello.features = feature::kChecksum;
  hello.max_requests = 17;
  hello.silence = std::chrono::milliseconds(2000);
  hello.session = uuid_random();
  hello.name = "someone 1.2";
  return hello;
}

TEST(Hello, SurvivesItsBytes) {
  const Hello hello = full_hello();
  EXPECT_EQ(decode_hello(encode(hello)), hello);
}

TEST(Hello, TruncatedAnywhereItIsNone) {
  Hello hello = full_hello();
  hello.name.clear();
  const auto bytes = encode(hello);
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_FALSE(decode_hello(std::span(bytes).first(length))) << length;
  EXPECT_TRUE(decode_hello(bytes));
}

TEST(Hello, ImpossibleValuesAreRefused) {
  Hello hello = full_hello();
  hello.version_min = 0;
  EXPECT_FALSE(decode_hello(encode(hello)));
  hello = full_hello();
  hello.version_min = 5;
  hello.version_max = 4;
  EXPECT_FALSE(decode_hello(encode(hello)));
  hello = full_hello();
  hello.max_payload = 4095;
  EXPECT_FALSE(decode_hello(encode(hello)));
  EXPECT_FALSE(decode_hello(std::vector<std::byte>(kMaxPayloadBeforeOpen + 1)));
}

TEST(Hello, NameIsMadeFitForALog) {
  Hello hello = full_hello();
  hello.name = "x\x1b[31m\r\n\r\n" + std::string(1000, 'y');
  const auto back = decode_hello(encode(hello));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->name.substr(0, 7), "x?[31my");
  EXPECT_LE(back->name.size(), 128u);
}

TEST(Opened, SurvivesItsBytes) {
  const Opened opened{.size = 12345, .identity = uuid_random()};
  EXPECT_EQ(decode_opened(encode(opened)), opened);
}

TEST(Opened, TruncatedAnywhereItIsNone) {
  const auto bytes = encode(Opened{.size = 1, .identity = uuid_random()});
  for (std::size_t length = 0; length < bytes.size(); ++length)
    EXPECT_FALSE(decode_opened(std::span(bytes).first(length))) << length;
}

TEST(Opened, MoreThanWeKnowIsForLaterVersions) {
  std::vector<std::byte> longer(100);
  const auto bytes = encode(Opened{.size = 1, .identity = {}});
  std::copy(bytes.begin(), bytes.end(), longer.begin());
  EXPECT_TRUE(decode_opened(longer));
}

TEST(Opened, ImpossibleSizesAreRefused) {
  EXPECT_FALSE(decode_opened(encode(Opened{.size = 0, .identity = {}})));
  EXPECT_FALSE(decode_opened(encode(Opened{.size = 1ull << 63, .identity = {}})));
}

TEST(Text, IsCutAndCleaned) {
  const std::string text = "a\tb\xff" + std::string(1000, 'c');
  const std::string clean = clean_text(std::as_bytes(std::span(text.data(), text.size())));
  EXPECT_EQ(clean.substr(0, 5), "a?b?c");
  EXPECT_EQ(clean.size(), kMaxErrorText);
}

}  // namespace
}  // namespace rmem::wire
