/**
 * Two gateways, each a process of its own, keep one cap in dollars in a store of which a server is killed: a node of a cluster that
 * their address names, and a master that Sentinels watch. Calls go on by themselves, and the cap is never exceeded.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Redis from "../../redis/test/server.ts"
import * as Capped from "./cappedGateways.ts"

/** A call costs a cent, and may cost three. */
const used = 998
const cap = 1

const ask = async (url: string): Promise<number> => {
  const response = await fetch(`${url}/v1/messages`, {
    method: "POST",
    headers: { "x-api-key": "sk-test-key-1234567890", "anthropic-version": "2023-06-01" },
    body: JSON.stringify({
      model: Capped.model,
      max_tokens: Capped.mostTokens,
      messages: [{ role: "user", content: "Hello" }]
    })
  })
  await response.text()
  return response.status
}

/** Clients that call through gateways until the cap is spent. */
const startClients = (urls: ReadonlyArray<string>) => {
  /** When each gateway gave its answers. */
  const answers = new Map<string, Array<number>>(urls.map((url) => [url, []]))
  const statuses: Record<string, number> = {}
  let killed = Infinity
  const client = async (url: string): Promise<void> => {
    for (let status = 200; status !== 402;) {
      status = await ask(url)
      statuses[status] = (statuses[status] ?? 0) + 1
      if (status === 200) answers.get(url)!.push(performance.now())
    }
  }
  const done = Promise.all(urls.flatMap((url) => [client(url), client(url), client(url)]))
  return {
    done,
    statuses,
    killed: () => (killed = performance.now()),
    /** For each gateway the longest time without an answer since the kill, in milliseconds. */
    silences: () =>
      [...answers.values()].map((times) => {
        const since = [killed, ...times.filter((time) => time > killed)]
        return Math.round(Math.max(...since.slice(1).map((time, i) => time - since[i]!)))
      }),
    /** Waits until each gateway has answered some calls. */
    underWay: () => Redis.until(async () => [...answers.values()].every(({ length }) => length >= 5))
  }
}

/** Kills something under the load of two gateways at one address. Returns what its clients and the provider saw. */
const scenario = async (
  name: string,
  redis: string,
  prefix: string,
  kill: () => Promise<unknown>,
  later?: (start: (url?: string) => Promise<string>) => Promise<void>
) => {
  const provider = await Capped.startProvider(used, 100)
  const gateways = Capped.startGateways(provider.url, cap)
  try {
    const urls = await Promise.all([1, 2].map(() => gateways.start(redis, prefix)))
    const clients = startClients(urls)
    await clients.underWay()
    clients.killed()
    await kill()
    await clients.done
    await later?.((url = redis) => gateways.start(url, prefix))
    const silences = clients.silences()
    const spent = Capped.dollarsOf(provider.calls(), used)
    console.log(`${name}: longest time without an answer ${silences.join(" and ")} ms, spent $${spent} of $${cap}`)
    return { silences, spent, statuses: Object.keys(clients.statuses).sort() }
  } finally {
    await gateways.stop()
    provider.close()
  }
}

/** What each scenario must come to. */
const isHeld = ({ silences, spent, statuses }: Awaited<ReturnType<typeof scenario>>) => ({
  // Less than calls wait for a store; negative infinity if a gateway has not answered again.
  isAnsweredAgain: silences.every((silence) => silence > 0 && silence < 25_000),
  isWithinCap: spent <= cap,
  isUsedUp: spent >= 0.9 * cap,
  // No caller has noticed: those that waited were answered.
  statuses
})
const held = { isAnsweredAgain: true, isWithinCap: true, isUsedUp: true, statuses: ["200", "402"] }

describe.skipIf(Redis.skipped !== undefined)("two gateways with one cap", { timeout: 120_000 }, () => {
  describe("in a cluster", () => {
    let cluster: Redis.Cluster
    beforeAll(async () => {
      cluster = await Redis.startCluster(3)
    }, 60_000)
    afterAll(() => cluster.stop())

    /** The master that keeps the cap of the gateways with a prefix. */
    const keeperOf = async (prefix: string): Promise<number> => {
      const key = `${prefix}:${encodeURIComponent(`ledger:${JSON.stringify(["rule", "rule all", "", "day"])}`)}`
      return Math.floor((3 * Number(await cluster.replicas[0]!.command("CLUSTER", "KEYSLOT", key))) / 16_384)
    }

    it("go on when the node that their address names is killed, which keeps the cap", async () => {
      const keeper = cluster.masters[await keeperOf("kept")]!
      const others = cluster.masters.filter((node) => node !== keeper)
      const seen = await scenario("named node with the cap", keeper.url, "kept", keeper.stop, async (start) => {
        // One that starts now needs an address of another node, too.
        const hosts = [keeper, ...others].map(({ url }) => new URL(url).host)
        assert.strictEqual(await ask(await start(`redis://${hosts.join(",")}`)), 402)
        const failed = await start(keeper.url).catch(String)
        assert.match(failed, /no Redis answers at redis:.*ECONNREFUSED/)
      })
      assert.deepStrictEqual(isHeld(seen), held)
    })

    it("go on when the node that their address names is killed, which does not keep the cap", async () => {
      const [gone, kept] = [await keeperOf("kept"), await keeperOf("aside")]
      const named = cluster.masters.find((_, i) => i !== gone && i !== kept)!
      const seen = await scenario("named node without the cap", named.url, "aside", named.stop)
      assert.deepStrictEqual(isHeld(seen), held)
    })
  })

  it("go on when the master that Sentinels watch is killed", async () => {
    const sentinels = await Redis.startSentinels()
    try {
      const { master, url } = sentinels
      const seen = await scenario("master of Sentinels", url, "watched", master.stop, async (start) => {
        await sentinels.sentinels[0]!.stop()
        assert.strictEqual(await ask(await start()), 402)
      })
      assert.deepStrictEqual(isHeld(seen), held)
    } finally {
      await sentinels.stop()
    }
  })
})

if (Redis.skipped !== undefined) console.warn(`SKIPPED: gateways whose store fails over, because ${Redis.skipped}`)
