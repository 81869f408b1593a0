/** What takes time in a fleet, to the millisecond: the script with a clock that the test sets. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import type { PoolOptions } from "floodgate/BudgetStore"
import { createClient } from "redis"
import { withClock } from "../../src/redis/scripts.ts"
import * as Wire from "../../src/redis/wire.ts"
import { mulberry } from "../support/random.ts"
import * as Redis from "./server.ts"

const prefix = Redis.fresh("leases")
const lease = 10_000
const options: PoolOptions = {
  limits: { tokens: { perSecond: 1, burst: 1_000 } },
  concurrency: 2,
  headroom: 0,
  ramp: undefined
}
const ask = (tokens: number) => Wire.take([{ charge: { tokens }, priority: 0 }])

describe.skipIf(Redis.skippedWithoutAny !== undefined)("redis script, in time", () => {
  let server: Awaited<ReturnType<typeof Redis.any>>
  const connect = () => createClient({ url: server.url })
  let client: ReturnType<typeof connect>
  let sha: string
  let pools = 0

  beforeAll(async () => {
    server = await Redis.any()
    client = connect()
    await client.connect()
    sha = await client.scriptLoad(
      withClock("local function clock() return tonumber(redis.call('GET', KEYS[1] .. ':clock')) end")
    )
  })
  afterAll(async () => {
    client.destroy()
    await server.stop()
  })

  /** A pool whose processes say what they want when they want; none has a heartbeat of its own. */
  const pool = (lost: "keep" | "refund" = "keep", given: Partial<PoolOptions> = {}) => {
    const tag = `{${prefix}:${++pools}}`
    const names = ["state", "open", "lost", "seen"].map((name) => `${tag}:${name}`)
    const epochs = new Map<string, number>()
    const seqs = new Map<string, number>()
    let now = 1_795_000_000_000
    let late = 0
    let origin = ""
    let sent = 0
    const request = async (owner: string, seq: number, epoch: number, list: ReadonlyArray<Wire.Operation>) => {
      sent++
      return JSON.parse(
        String(
          await client.evalSha(sha, {
            keys: names,
            arguments: [owner, JSON.stringify([seq, epoch, -1, list, late]), "c:", String(lease), lost]
          })
        )
      ) as Wire.Reply
    }
    const raw = async (owner: string, seq: number, operations: ReadonlyArray<Wire.Operation>) => {
      await client.set(`${names[0]}:clock`, String(now))
      const introduced = [Wire.open({ ...options, ...given }), ["join", [], []], ...operations] as const
      const epoch = epochs.get(owner) ?? 0
      const first = await request(owner, seq, epoch, epoch === 0 ? introduced : operations)
      const reply = first[1] === 0 ? await request(owner, seq, epoch, introduced) : first
      origin = reply[3]
      epochs.set(owner, reply[1])
      return reply[7].slice(-operations.length)
    }
    const say = (owner: string, ...operations: ReadonlyArray<Wire.Operation>) => {
      const seq = (seqs.get(owner) ?? 0) + 1
      seqs.set(owner, seq)
      return raw(owner, seq, operations)
    }
    return {
      keys: names,
      /** It says something and dies before it hears that it must say first who it is. */
      lastWord: async (owner: string, ...operations: ReadonlyArray<Wire.Operation>) => {
        await client.set(`${names[0]}:clock`, String(now))
        return request(owner, (seqs.get(owner) ?? 0) + 1, epochs.get(owner) ?? 0, operations)
      },
      origin: () => origin,
      /** How often the script has run. */
      sent: () => sent,
      raw,
      say,
      /** The id of what is granted, if it is. */
      take: async (owner: string, tokens: number) => {
        const [[id, granted]] = (await say(owner, ask(tokens))) as [Wire.TakeReply]
        return granted === 0 ? [] : [id]
      },
      level: async (owner: string) => {
        const [snapshot] = (await say(owner, ["snapshot"])) as [Wire.SnapshotReply]
        return Math.round(Wire.toSnapshot(snapshot, now).ledger.buckets.tokens!.level)
      },
      /** From now on every process says that it heard the last reply so late. */
      hearLate: (millis: number) => void (late = millis),
      /** Time passes, and nobody is heard. */
      passSilently: (millis: number) => void (now += millis),
      /** Time passes while `alive` gives its signs of life. */
      pass: async (millis: number, alive: string) => {
        for (let left = millis; left > 0; left -= lease / 4) {
          now += Math.min(left, lease / 4)
          await say(alive, ["beat"])
        }
      }
    }
  }

  it("leases return the permit of a process that died when its lease is over, and not a millisecond before", async () => {
    const { pass, take } = pool()
    await take("alive/1", 1)
    await take("dead/1", 100)
    await pass(lease, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 0)
    await pass(1, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 1)
  })

  it("leases keep what a dead process held as used, and a late settlement corrects it once", async () => {
    const { level, pass, say, take } = pool()
    const [id] = await take("dead/1", 500)
    await take("alive/1", 1)
    await pass(lease + 1, "alive/1")
    assert.strictEqual(await level("alive/1"), 509)
    await say("dead/1", Wire.settle(id!, { tokens: 100 }, true))
    assert.strictEqual(await level("alive/1"), 909)
    await say("dead/1", Wire.settle(id!, { tokens: 0 }, true))
    assert.strictEqual(await level("alive/1"), 909)
  })

  it("leases give back what a dead process held where that was chosen, once", async () => {
    const { level, pass, say, take } = pool("refund")
    const [id] = await take("dead/1", 500)
    await take("alive/1", 100)
    await pass(lease, "alive/1")
    assert.strictEqual(await level("alive/1"), 410)
    await pass(1, "alive/1")
    assert.strictEqual(await level("alive/1"), 910)
    await say("dead/1", Wire.settle(id!, { tokens: 0 }, true))
    assert.strictEqual(await level("alive/1"), 910)
  })

  it("knows the output in flight, whatever became of calls, and looks at none of them for it", async () => {
    const limits = { outputTokens: { perSecond: 0.001, burst: 100_000 } }
    const { keys, pass, say } = pool("keep", { limits, concurrency: Infinity })
    const take = async (owner: string, outputTokens: number) => {
      const [reply] = (await say(owner, Wire.take([{ charge: { outputTokens }, priority: 0 }]))) as [Wire.TakeReply]
      return reply[0]
    }
    const looks = async () => /cmdstat_hgetall:calls=(\d+)/.exec(await client.info("commandstats"))?.[1]
    let remaining = 50_000
    /** What is taken off what the provider says, which is less each time: only then is the level as it says. */
    const inFlight = async (answered?: number) => {
      const held = answered === undefined ? undefined : { id: answered, charge: {}, takenAt: 0 }
      const before = await looks()
      const [, snapshot] = (await say(
        "a/1",
        Wire.observe({ dimensions: { outputTokens: { remaining: (remaining -= 1_000) } } }, held),
        ["snapshot"]
      )) as [0, Wire.SnapshotReply]
      assert.strictEqual(await looks(), before)
      return remaining - Math.round(Wire.toSnapshot(snapshot, 0).ledger.buckets.outputTokens!.level)
    }
    const a = await take("a/1", 100)
    const b = await take("b/1", 200)
    await take("dead/1", 400)
    assert.strictEqual(await inFlight(), 700)
    assert.strictEqual(await inFlight(a), 700)
    await say("b/1", Wire.settle(b, { outputTokens: 150 }, true))
    assert.strictEqual(await inFlight(), 500)
    await pass(lease + 1, "a/1")
    assert.strictEqual(await inFlight(), 100)
    // Calls that are gone here, and are said again.
    await client.del(keys[1]!)
    const again: Wire.Operation = ["join", [[a, 0, [-1, -1, 100, -1]]], []]
    await say("a/1", again)
    assert.strictEqual(await inFlight(), 100)
    await say("a/1", Wire.settle(a, {}, true))
    const [[name]] = (await say("a/1", ["back", 1, 10, [false, false, false, false], [[0, [-1, -1, 30, -1]]]])) as [
      [number]
    ]
    assert.strictEqual(await inFlight(), 30)
    await client.hSet(keys[1]!, String(name), "nonsense")
    await say("a/1", Wire.settle(name, {}, true))
    await say("a/1", ["beat"])
    assert.strictEqual(await inFlight(), 0)
  })

  it("leases return what a process had not settled when it left", async () => {
    const { pass, say, take } = pool()
    await take("alive/1", 1)
    await take("left/1", 100)
    await say("left/1", ["leave"])
    await pass(lease, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 0)
    await pass(1, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 1)
  })

  it("leases take nobody for dead after the server itself was away", async () => {
    const { passSilently, take } = pool()
    await take("alive/1", 1)
    await take("other/1", 1)
    passSilently(3 * lease)
    assert.lengthOf(await take("alive/1", 1), 0)
  })

  it("what shares had left after an outage adds up, although all say something else first when they are back", async () => {
    const limits = { tokens: { perSecond: 10, burst: 1_000 } }
    const { level, passSilently, say, take } = pool("keep", { limits, concurrency: Infinity })
    const back = (left: number, awayMillis: number): Wire.Operation => [
      "back",
      2,
      awayMillis,
      [false, false, false, [left, 240, []]],
      []
    ]
    await take("a/1", 900)
    await take("b/1", 0)
    passSilently(50_000)
    // What was under way when the server went away is sent again.
    assert.strictEqual(await level("a/1"), 600)
    passSilently(5)
    await say("a/1", back(10, 48_000))
    // There were 100 before.
    assert.strictEqual(await level("a/1"), 110)
    passSilently(1_000)
    await say("b/1", ["beat"])
    await say("b/1", back(20, 49_000))
    // One second at half the rate, because half of the shares were back.
    assert.strictEqual(await level("a/1"), 135)
    // Where others were heard meanwhile, what was spent is owed.
    for (let n = 0; n < 20; n++) {
      passSilently(500)
      await say("b/1", ["beat"])
    }
    const before = await level("b/1")
    await say("a/1", ["back", 2, 9_000, [false, false, false, [0, 30, []]], []])
    assert.strictEqual(await level("b/1"), before - 30)
  })

  it("a server's clock that steps back, and is put right again, gives nothing and stops nobody", async () => {
    const { level, origin, passSilently, take } = pool()
    await take("a/1", 500)
    passSilently(10_000)
    assert.strictEqual(await level("a/1"), 510)
    passSilently(-60_000)
    assert.strictEqual(await level("a/1"), 510)
    passSilently(4_000)
    assert.strictEqual(await level("a/1"), 514)
    assert.lengthOf(await take("a/1", 514), 1)
    // It is put right again: what it makes up for is not time that has passed.
    passSilently(60_000)
    assert.strictEqual(await level("a/1"), 0)
    passSilently(5_000)
    assert.strictEqual(await level("a/1"), 5)
    assert.strictEqual(origin(), "new")
  })

  it("ids count up on an empty server, too, whose clock is behind that of the last one", async () => {
    const { keys, passSilently, say, take } = pool()
    const [id] = await take("a/1", 100)
    await client.del(keys)
    passSilently(-3_600_000)
    const [, [next]] = (await say("a/1", ["join", [[id, 0, [-1, -1, -1, 100]]], []], ask(0))) as [0, Wire.TakeReply]
    assert.isAbove(next, id!)
  })

  it("requests do nothing twice when a request is sent again because its reply was lost", async () => {
    const { level, raw } = pool()
    const first = await raw("a/1", 1, [ask(400)])
    const again = await raw("a/1", 1, [ask(400)])
    assert.deepStrictEqual(again, first)
    assert.strictEqual(await level("b/1"), 600)
  })

  it("requests do nothing twice when they are sent again after the lease, either", async () => {
    const { level, pass, raw, say } = pool()
    await say("b/1", ["beat"])
    const first = await raw("a/1", 1, [ask(400)])
    await pass(lease + 1, "b/1")
    assert.deepStrictEqual(await raw("a/1", 1, [ask(400)]), first)
    assert.strictEqual(await level("b/1"), 610)
  })

  // The memory gate's rule, for all processes together: `budget/gate.ts`.
  it("a probe that stays silent holds back the others for a minute, and not a millisecond longer", async () => {
    const { pass, say, take } = pool("keep", { concurrency: Infinity })
    await say("alive/1", Wire.pause({ reason: "rateLimit", millis: 1, charge: undefined }, 0))
    await pass(2, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 1)
    await pass(59_999, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 0)
    await pass(1, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 1)
    // Now that one is waited for.
    assert.lengthOf(await take("alive/1", 1), 0)
  })

  it("a probe whose process died goes when its lease is over", async () => {
    const { pass, say, take } = pool("keep", { concurrency: Infinity })
    await say("dead/1", Wire.pause({ reason: "rateLimit", millis: 1, charge: undefined }, 0))
    await pass(2, "alive/1")
    assert.lengthOf(await take("dead/1", 1), 1)
    await pass(lease, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 0)
    await pass(1, "alive/1")
    assert.lengthOf(await take("alive/1", 1), 1)
  })

  it("the first call of a pool without limits holds back the others for a minute at most", async () => {
    const { pass, take } = pool("keep", { limits: {}, concurrency: Infinity })
    assert.lengthOf(await take("alive/1", 1), 1)
    await pass(59_999, "alive/1")
    assert.lengthOf(await take("other/1", 1), 0)
    await pass(1, "alive/1")
    assert.lengthOf(await take("other/1", 1), 1)
  })

  it("heads that do not come when they may are passed over after 250 ms", async () => {
    const { passSilently, take } = pool("keep", { concurrency: Infinity })
    await take("a/1", 500)
    assert.lengthOf(await take("dead/1", 900), 0)
    passSilently(400_000)
    assert.lengthOf(await take("a/1", 10), 0)
    passSilently(249)
    assert.lengthOf(await take("a/1", 10), 0)
    passSilently(1)
    assert.lengthOf(await take("a/1", 10), 1)
  })

  it("heads of processes take turns by what they cost, not by their number", async () => {
    const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }
    const { pass, take } = pool("keep", { limits, concurrency: Infinity })
    const got = { large: 0, small: 0 }
    for (let step = 0; step < 2_000; step++) {
      await pass(5, "watch/1")
      got.large += 500 * (await take("large/1", 500)).length
      got.small += 20 * (await take("small/1", 20)).length
    }
    // A second of burst and ten of rate, to within one large call.
    assert.isAtLeast(got.large + got.small, 10_500)
    assert.isAtMost(Math.abs(got.large - got.small), 500)
  })

  it("headroom never shrinks below what is refilled while grants are on their way", async () => {
    const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }
    const { hearLate, pass, say, take } = pool("keep", { limits, headroom: 0.05, concurrency: Infinity })
    assert.lengthOf(await take("a/1", 900), 1)
    // 100 are left, and 50 kept back.
    hearLate(80)
    assert.lengthOf(await take("a/1", 25), 0)
    hearLate(0)
    // Half of it is forgotten in ten seconds: 40 are less than the headroom.
    await pass(10_000, "a/1")
    assert.lengthOf(await take("a/1", 900), 1)
    assert.lengthOf(await take("a/1", 45), 1)
    // However late: a quarter of the burst at most.
    hearLate(1_500)
    await pass(751, "a/1")
    assert.lengthOf(await take("a/1", 750), 0)
    await pass(249, "a/1")
    assert.lengthOf(await take("a/1", 750), 1)
    await say("a/1", ["leave"])
  })

  it("headroom is nothing where none was asked for", async () => {
    const { hearLate, take } = pool()
    hearLate(1_500)
    assert.lengthOf(await take("a/1", 999), 1)
    assert.lengthOf(await take("a/1", 1), 1)
  })

  it("nothing grows in an hour of calls, of which some end late, and of processes that come, leave and die", async () => {
    const limits = { tokens: { perMinute: 60_000 }, outputTokens: { perMinute: 6_000 } }
    const { keys, pass, say, take } = pool("keep", { limits, concurrency: Infinity })
    const [state, open, lost, seen] = keys as [string, string, string, string]
    const next = mulberry(6)
    const sizes = async () => ({
      state: await client.strLen(state),
      open: await client.hLen(open),
      lost: await client.hLen(lost),
      seen: await client.hLen(seen)
    })
    const most: Array<Awaited<ReturnType<typeof sizes>>> = []
    for (let minute = 0; minute < 60; minute++) {
      const owner = `p${minute}/1`
      for (let call = 0; call < 20; call++) {
        await pass(next() * 4_000, "watch/1")
        const [id] = await take(owner, Math.ceil(next() * 1_000))
        // One in ten is never settled: its process dies with it.
        if (id !== undefined && next() < 0.9) await say(owner, Wire.settle(id, { tokens: next() * 1_000 }, true))
      }
      if (next() < 0.5) await say(owner, ["leave"])
      await pass(lease + 1, "watch/1")
      most.push(await sizes())
    }
    // What the dead held is known for ten minutes.
    const bound = (part: ReadonlyArray<(typeof most)[number]>, key: keyof (typeof most)[number]) =>
      Math.max(...part.map((each) => each[key]))
    for (const key of ["state", "lost"] as const) {
      assert.isAtMost(bound(most.slice(30), key), 1.5 * bound(most.slice(10, 30), key), key)
    }
    assert.strictEqual(bound(most, "open"), 0)
    // As the last requests of the dead are.
    assert.isAtMost(bound(most, "seen"), 16)
    const names = (await client.sendCommand(["KEYS", `${state.slice(0, state.indexOf("}") + 1)}*`])) as unknown
    assert.sameMembers(
      (names as ReadonlyArray<string>).filter((name) => !name.endsWith(":clock")),
      [state, lost, seen]
    )
  })

  it("no key outlives its pool, and none expires before its debt is paid", async () => {
    const { keys, say, take } = pool()
    const [id] = await take("a/1", 1_000)
    const [other] = await take("b/1", 0)
    // At one token a second this debt takes 100,000 seconds.
    await say("a/1", Wire.settle(id!, { tokens: 101_000 }, true))
    assert.isDefined(other)
    for (const key of keys.filter((name) => !name.endsWith(":lost"))) {
      const left = await client.pTTL(key)
      assert.isAbove(left, 100_000_000, key)
      assert.isBelow(left, 300_000_000, key)
    }
  })

  it("a quota outlives a process that dies before it can say who it is", async () => {
    const { keys, lastWord, say, take } = pool("keep", { limits: { tokens: { total: 1_000 } } })
    await take("a/1", 100)
    await say("b/1", ["beat"])
    // Reservations are gone, so that everybody is asked who he is.
    await client.del(keys[1]!)
    assert.strictEqual((await lastWord("b/1", ["beat"]))[1], 0)
    assert.isAbove(await client.pTTL(keys[0]!), 29 * 86_400_000)
  })

  it("what the dead held is forgotten after ten minutes where nobody has time for a sign of life, too", async () => {
    const { keys, passSilently, take } = pool("keep", { concurrency: Infinity })
    for (let minute = 0; minute < 40; minute++) {
      await take(`dead${minute}/1`, 1)
      for (let left = 60; left > 0; left -= 4) {
        passSilently(4_000)
        await take("busy/1", 0)
      }
      assert.isAtMost(await client.hLen(keys[2]!), 12)
    }
  })

  it("processes say once again what they hold where a replica takes over that has missed a request of each", async () => {
    const { keys, passSilently, say, sent } = pool()
    const owners = ["a/1", "b/1", "c/1", "d/1"]
    const round = async () => {
      const before = sent()
      for (const owner of owners) {
        passSilently(1)
        await say(owner, ["beat"])
      }
      return sent() - before
    }
    const copy = async (from: string, to: string) => {
      for (const key of keys) await client.sendCommand(["COPY", key + from, key + to, "REPLACE"])
    }
    await round()
    await copy("", "-replica")
    await round()
    await copy("-replica", "")
    assert.strictEqual(await round(), 2 * owners.length)
    assert.strictEqual(await round(), owners.length)
    await client.del(keys.map((key) => `${key}-replica`))
  })

  it("a state that goes back to an older copy asks who it does not know, and has no more left than that one remembers", async () => {
    const { keys, level, passSilently, say, sent, take } = pool()
    await take("old/1", 10)
    for (const key of keys) await client.sendCommand(["COPY", key, `${key}-old`])
    const [id] = await take("new/1", 700)
    for (const key of keys) await client.sendCommand(["COPY", `${key}-old`, key, "REPLACE"])
    await client.del(keys.map((key) => `${key}-old`))
    passSilently(100)
    const before = sent()
    await say("new/1", ["join", [[id!, 100, [-1, -1, -1, 700]]], [false, false, false, [290, 100]]])
    assert.strictEqual(sent() - before, 2)
    assert.strictEqual(await level("new/1"), 290)
    assert.lengthOf(await take("new/1", 1), 0)
  })

  it("a state of which any byte was changed or is missing starts again from nothing", async () => {
    const next = mulberry(8)
    const below = (n: number) => Math.floor(next() * n)
    const { keys, level, origin, say, take } = pool()
    await take("a/1", 400)
    const length = await client.strLen(keys[0]!)
    for (let n = 0; n < 200; n++) {
      await client.sendCommand(["COPY", keys[0]!, `${keys[0]}:kept`, "REPLACE"])
      const at = below(length)
      if (next() < 0.3) {
        await client.eval("redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, ARGV[1]))", {
          keys: [keys[0]!],
          arguments: [String(at - 1 < 0 ? 0 : at - 1)]
        })
      } else {
        await client.eval(
          "local c = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[1]) redis.call('SETRANGE', KEYS[1], ARGV[1], string.char((string.byte(c) + ARGV[2]) % 256))",
          { keys: [keys[0]!], arguments: [String(at), String(1 + below(255))] }
        )
      }
      // Somebody who never saw the state.
      const seen = await level(`new${n}/1`)
      assert.strictEqual(origin(), "damaged", `byte ${at}`)
      assert.strictEqual(seen, 0, `byte ${at}`)
      await say(`new${n}/1`, ["leave"])
      await client.sendCommand(["COPY", `${keys[0]}:kept`, keys[0]!, "REPLACE"])
    }
  })

  it("no request fails by what lies among what is held: foreign fields, and bytes that were changed", async () => {
    const next = mulberry(9)
    const below = (n: number) => Math.floor(next() * n)
    const pick = <A>(items: ReadonlyArray<A>): A => items[below(items.length)]!
    const foreign = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"
    const copied = "redis.call('HSET', KEYS[1], ARGV[1], redis.call('HVALS', KEYS[2])[1])"
    const changed = `
      local v = redis.call('HVALS', KEYS[2])[1]
      local at = 1 + ARGV[3] % #v
      redis.call('HSET', KEYS[1], ARGV[1], string.sub(v, 1, at - 1) .. string.char(ARGV[4]) .. string.sub(v, at + 1))`
    for (let n = 0; n < 150; n++) {
      const { keys, pass, say, take } = pool("keep", { concurrency: Infinity })
      const [, open, lost] = keys as [string, string, string, string]
      await take("dead/1", 10)
      await pass(lease + 1, "a/1")
      const [id] = await take("a/1", 10)
      await take("b/1", 10)
      const key = pick([open, lost])
      const field = pick(["x", "nan", "0x1", "-1", "a/1", ...(await client.hKeys(key))])
      await client.eval(pick([foreign, copied, changed]), {
        keys: [key, pick([open, lost])],
        arguments: [field, pick(["", "1 x", "7"]), `${below(100)}`, `${below(256)}`]
      })
      assert.lengthOf(await say("b/1", ["holders"], ["beat"]), 2)
      await say(
        "a/1",
        Wire.observe({ dimensions: { tokens: { remaining: 500 } } }, { id: id!, charge: {}, takenAt: 0 })
      )
      await say("a/1", Wire.settle(id!, { tokens: 1 }, true))
      await pass(lease + 1, "a/1")
      await pass(601_000, "a/1")
      await say("a/1", ["join", [], []], ["holders"], ["leave"])
    }
  })

  it("a pool of which any keys are missing has no more left than before, as long as anybody remembers it", async () => {
    for (let missing = 1; missing < 16; missing++) {
      const { keys, level, take } = pool()
      await take("a/1", 400)
      await take("b/1", 100)
      await client.del(keys.filter((_, i) => (missing & (1 << i)) !== 0))
      assert.isAtMost(await level("a/1"), 500, `keys ${missing.toString(2)}`)
    }
  })
})
