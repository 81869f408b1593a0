import { assert, describe, it } from "@effect/vitest"
import { RedisAddress } from "floodgate/internal"

const at = (text: string) => {
  const { master, named, server } = RedisAddress.parse(text)!
  return { named, master, other: server("10.0.0.9", 7000) }
}

describe("an address of Redis", () => {
  it("is passed on as it is if it names one server", () => {
    for (const text of [
      "redis://127.0.0.1:6379",
      "redis://localhost",
      "rediss://user:p%40ss@redis.example:6380/3",
      "redis://:word@[::1]:6379/0",
      "redis://user:pa@ss@host"
    ]) {
      assert.deepStrictEqual(at(text).named, [text])
      assert.isUndefined(at(text).master)
    }
  })

  it("gives each of several nodes, named or found, the user, the password, TLS and the database", () => {
    assert.deepStrictEqual(at("rediss://gate:wo%2Crd@a:1,b,[::1]:3/0"), {
      named: ["rediss://gate:wo%2Crd@a:1/0", "rediss://gate:wo%2Crd@b/0", "rediss://gate:wo%2Crd@[::1]:3/0"],
      master: undefined,
      other: "rediss://gate:wo%2Crd@10.0.0.9:7000/0"
    })
    assert.strictEqual(RedisAddress.parse("redis://a:1,b:2")!.server("::1", 3), "redis://[::1]:3")
  })

  it("keeps the login of the Sentinels apart from that of the master", () => {
    assert.deepStrictEqual(
      at("redis+sentinel://gate:word@a:1,b,[::1]/my%20master/3?sentinelUser=looker&sentinelPassword=p%40ss"),
      {
        named: ["redis://looker:p%40ss@a:1", "redis://looker:p%40ss@b:26379", "redis://looker:p%40ss@[::1]:26379"],
        master: "my master",
        other: "redis://gate:word@10.0.0.9:7000/3"
      }
    )
    assert.deepStrictEqual(at("rediss+sentinel://:word@a/m"), {
      named: ["rediss://a:26379"],
      master: "m",
      other: "rediss://:word@10.0.0.9:7000"
    })
    assert.deepStrictEqual(at("redis+sentinel://a/m?sentinelPassword=word").named, ["redis://:word@a:26379"])
  })

  it("is nothing else", () => {
    for (const text of [
      "",
      "localhost:6379",
      "http://localhost:6379",
      "redis:word@127.0.0.1",
      "redis://a:1,",
      "redis://a,,b",
      "redis://a:x",
      "redis://a:1,b:70000",
      "redis://user:%zz@a",
      "redis+sentinel://a:26379",
      "redis+sentinel://a:26379/",
      "redis+sentinel:///m",
      "redis+sentinel://a/m/x",
      "redis+sentinel://a/m/0/1",
      "redis+sentinel://a/m?password=word",
      "redis+sentinel://a/%zz",
      "redis+other://a/m"
    ]) {
      assert.isUndefined(RedisAddress.parse(text), text)
    }
  })

  it("is shown without users, passwords and query", () => {
    for (const [text, shown] of [
      ["redis://user:secret@a:1/", "redis://a:1"],
      ["rediss://:sec@ret@a:1,b:2/3", "rediss://a:1,b:2/3"],
      ["redis+sentinel://user:secret@a:1,b/m/0?sentinelPassword=secret", "redis+sentinel://a:1,b/m/0"]
    ] as const) {
      assert.strictEqual(RedisAddress.shown(text), shown)
    }
  })
})
