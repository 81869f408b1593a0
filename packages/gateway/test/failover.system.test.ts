/**
 * Two gateways, each a process of its own, keep one cap in dollars in a store of which a server is killed: a node of a cluster that
 * their address names, and a master that Sentinels watch. Calls go on by themselves, and the cap is never exceeded.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"
import { message } from "../../../test/support/httpProvider.ts"
import * as Redis from "../../redis/test/server.ts"

const model = "claude-sonnet-5-5"
/** A call costs a cent, and may cost three. */
const [used, most] = [998, 3_000]
const dollarsOf = (calls: number): number => (calls * (used * 10 + 10 * 2)) / 1_000_000
const cap = 1

const bin = resolve(import.meta.dirname, "../../cli/src/bin.ts")

/** A provider that takes a tenth of a second for an answer. */
const startProvider = async () => {
  let calls = 0
  const server = createServer((request, response) => {
    request.resume()
    calls++
    setTimeout(() => {
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(message(10, used, model)))
    }, 100)
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls: () => calls,
    close: () => server.close()
  }
}

/** Gateways with one cap, as processes. */
const startGateways = (upstream: string) => {
  const folder = mkdtempSync(join(tmpdir(), "floodgate-failover-"))
  const config = join(folder, "gateway.json")
  const rules = [{ name: "all", cap: { dollars: cap, per: "day" } }]
  writeFileSync(config, JSON.stringify({ upstreams: { anthropic: upstream }, rules }))
  const children: Array<ChildProcess> = []
  return {
    /** Returns the address on which it listens. */
    start: async (redis: string, prefix: string): Promise<string> => {
      const args = ["gateway", "--config", config, "--port", "0", "--redis", redis, "--redis-prefix", prefix]
      const child = spawn(process.execPath, ["--conditions=@floodgate/source", bin, ...args], {
        stdio: ["ignore", "pipe", "pipe"]
      })
      children.push(child)
      let said = ""
      child.stderr.on("data", (data: Buffer) => (said += data.toString()))
      for await (const line of createInterface(child.stdout)) {
        const [, url] = /listening on (\S+)/.exec(line) ?? []
        if (url !== undefined) return url
      }
      throw new Error(`a gateway has not started: ${said}`)
    },
    stop: async () => {
      const exits = children.map((child) => (child.exitCode === null ? once(child, "exit") : undefined))
      for (const child of children) child.kill("SIGKILL")
      await Promise.all(exits)
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

const ask = async (url: string): Promise<number> => {
  const response = await fetch(`${url}/v1/messages`, {
    method: "POST",
    headers: { "x-api-key": "sk-test-key-1234567890", "anthropic-version": "2023-06-01" },
    body: JSON.stringify({ model, max_tokens: most, messages: [{ role: "user", content: "Hello" }] })
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
  const provider = await startProvider()
  const gateways = startGateways(provider.url)
  try {
    const urls = await Promise.all([1, 2].map(() => gateways.start(redis, prefix)))
    const clients = startClients(urls)
    await clients.underWay()
    clients.killed()
    await kill()
    await clients.done
    await later?.((url = redis) => gateways.start(url, prefix))
    const silences = clients.silences()
    const spent = dollarsOf(provider.calls())
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
