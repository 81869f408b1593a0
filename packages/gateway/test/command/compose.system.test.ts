/** The parts of docs/gateway/compose.yml, started as processes of this machine with the commands and files that it names. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { ProviderServer } from "floodgate/testing/server"
import { spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { parse, stringify } from "yaml"
import * as Process from "../support/command.ts"

interface Service {
  readonly command?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly volumes?: ReadonlyArray<string>
  readonly secrets?: ReadonlyArray<string>
}

interface PrometheusFile {
  readonly global: object
  readonly scrape_configs: ReadonlyArray<{
    readonly job_name: string
    readonly authorization: { readonly credentials_file: string }
    readonly static_configs: ReadonlyArray<{ readonly targets: ReadonlyArray<string> }>
  }>
}

const folder = Path.resolve(import.meta.dirname, "../../../../docs/gateway")
const read = (name: string): string => Fs.readFileSync(Path.join(folder, name), "utf8")
const compose = parse(read("compose.yml"), { merge: true }) as {
  readonly services: Readonly<Record<string, Service>>
  readonly secrets: Readonly<Record<string, { readonly environment: string }>>
}

/** Where a file of the folder is in a container. */
const mountOf = (service: string, file: string): string | undefined =>
  compose.services[service]?.volumes?.find((volume) => volume.startsWith(`./${file}:`))?.split(":")[1]

const has = (program: string, flag: string): boolean => spawnSync(program, [flag]).status === 0
const token = "0123456789abcdef"
const key = "fg-search"

const until = <A>(effect: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("50 millis") })

const freePort = Effect.callback<number>((resume) => {
  const server = Net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as Net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** Starts a program until the end of the test. */
const program = (command: ReadonlyArray<string>, cwd: string) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(command[0]!, command.slice(1), { cwd, stdio: "ignore" })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** An answer of Prometheus; undefined while it does not listen. */
const told = <A>(url: string): Effect.Effect<A | undefined> =>
  Effect.promise(async () => {
    const response = await fetch(url).catch(() => undefined)
    return response === undefined ? undefined : ((await response.json()) as { readonly data: A }).data
  })

interface Found {
  readonly result: ReadonlyArray<{ readonly metric: { readonly instance?: string }; readonly value: [number, string] }>
}

/** The result of a query: its values by the label `instance`. */
const asked = (prometheus: string, query: string) =>
  Effect.map(told<Found>(`${prometheus}/api/v1/query?query=${encodeURIComponent(query)}`), (found) =>
    (found?.result ?? []).map(({ metric, value }) => [metric.instance, Number(value[1])] as const)
  )

interface Rules {
  readonly groups: ReadonlyArray<{ readonly rules: ReadonlyArray<{ readonly name: string; readonly health: string }> }>
}

describe("the compose file", () => {
  it.live.skipIf(!has("redis-server", "--version") || !has("prometheus", "--version"))(
    "has two gateways that share their limits, and a Prometheus that reads both and knows the alerts",
    () =>
      Effect.gen(function* () {
        const provider = yield* ProviderServer.make({
          limits: { requests: { perMinute: 600 } },
          latency: { baseMillis: 5, perInputTokenMillis: 0 }
        })
        const { inside } = yield* Process.folder
        const redisPort = yield* freePort
        const redis = compose.services["redis"]!.command!
        yield* program([...redis, "--port", String(redisPort), "--dir", inside, "--save", ""], inside)
        Fs.writeFileSync(
          Path.join(inside, "gateway.json"),
          JSON.stringify({
            upstreams: { anthropic: provider.url },
            keys: [{ name: "search", sha256: createHash("sha256").update(key).digest("hex") }],
            rules: [{ name: "everybody", cap: { dollars: 100, per: "day" } }]
          })
        )
        const entry = JSON.parse(/^ENTRYPOINT (\[.*\])$/m.exec(read("Dockerfile"))![1]!) as ReadonlyArray<string>
        const gateway = Effect.fnUntraced(function* (name: string) {
          const { command = [], environment = {} } = compose.services[name]!
          assert.strictEqual(mountOf(name, "gateway.json"), command[command.indexOf("--config") + 1])
          const here: Readonly<Record<string, string>> = {
            "/etc/floodgate/gateway.json": "gateway.json",
            "/data/state.json": `${name}.json`,
            "redis://redis:6379": `redis://127.0.0.1:${redisPort}`
          }
          const args = [...entry.slice(1), ...command].map((arg) => here[arg] ?? arg)
          assert.includeMembers(Object.keys(environment), ["FLOODGATE_GATEWAY_TOKEN", "ANTHROPIC_API_KEY"])
          const env = { FLOODGATE_GATEWAY_TOKEN: token, ANTHROPIC_API_KEY: "sk-provider" }
          const { child, output } = Process.start(inside, [...args, "--port", "0"], env)
          yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
          const text = yield* until(Effect.sync(output), (text) => /listening on .*\n|floodgate[a-z-]*: /.test(text))
          const [, port] = /listening on http:\/\/0\.0\.0\.0:(\d+)/.exec(text) ?? []
          assert.isDefined(port, text)
          return `127.0.0.1:${port}`
        })
        const gateways = [yield* gateway("gateway-1"), yield* gateway("gateway-2")]

        const file = parse(read("prometheus.yml")) as PrometheusFile
        const [scraped] = file.scrape_configs
        assert.deepStrictEqual(scraped!.static_configs[0]!.targets, ["gateway-1:8788", "gateway-2:8788"])
        const [secret = ""] = compose.services["prometheus"]!.secrets!
        assert.strictEqual(scraped!.authorization.credentials_file, `/run/secrets/${secret}`)
        assert.strictEqual(compose.secrets[secret]!.environment, "FLOODGATE_GATEWAY_TOKEN")
        assert.strictEqual(mountOf("prometheus", "alerts.yml"), "/etc/prometheus/alerts.yml")
        Fs.writeFileSync(Path.join(inside, "token"), token)
        Fs.copyFileSync(Path.join(folder, "alerts.yml"), Path.join(inside, "alerts.yml"))
        const local = {
          ...file,
          global: { ...file.global, scrape_interval: "1s", evaluation_interval: "1s" },
          scrape_configs: [
            { ...scraped, authorization: { credentials_file: "token" }, static_configs: [{ targets: gateways }] }
          ]
        }
        Fs.writeFileSync(Path.join(inside, "prometheus.yml"), stringify(local))
        const prometheus = `http://127.0.0.1:${yield* freePort}`
        const { command = [] } = compose.services["prometheus"]!
        assert.include(command, `--config.file=${mountOf("prometheus", "prometheus.yml")}`)
        const flags = command.map((flag) => flag.replace("/etc/prometheus/", "").replace("=/prometheus", "=data"))
        yield* program(["prometheus", ...flags, `--web.listen-address=${new URL(prometheus).host}`], inside)

        for (const host of gateways) {
          const status = yield* Effect.promise(async () => {
            const messages = [{ role: "user", content: "Hello" }]
            const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages })
            const headers = { "x-api-key": key, "anthropic-version": "2023-06-01" }
            return (await fetch(`http://${host}/v1/messages`, { method: "POST", headers, body })).status
          })
          assert.strictEqual(status, 200)
        }
        const up = yield* until(
          asked(prometheus, "up"),
          (found) => found.filter(([, value]) => value === 1).length === 2
        )
        assert.sameMembers(
          up.map(([instance]) => instance),
          gateways
        )
        const tokens = 'floodgate_gateway_tokens{key="search",direction="input"}'
        yield* until(asked(prometheus, tokens), (found) => found.length === 2 && found.every(([, value]) => value > 0))
        // Each gateway knows the pool of the other's call.
        yield* until(asked(prometheus, "floodgate_gateway_pool_paused"), (found) => found.length >= 2)
        const rules = yield* told<Rules>(`${prometheus}/api/v1/rules`)
        const health = rules!.groups[0]!.rules.map(({ health, name }) => `${name} ${health}`)
        assert.isAbove(health.length, 5)
        assert.deepStrictEqual(
          health.filter((text) => text.endsWith(" err")),
          []
        )
      })
  )

  it("gives Grafana its data source and the dashboard", () => {
    const source = parse(read("grafana/datasource.yml")) as {
      readonly datasources: ReadonlyArray<{ readonly type: string; readonly url: string }>
    }
    assert.deepInclude(source.datasources[0], { type: "prometheus", url: "http://prometheus:9090" })
    const provided = parse(read("grafana/dashboards.yml")) as {
      readonly providers: ReadonlyArray<{ readonly options: { readonly path: string } }>
    }
    const dashboard = mountOf("grafana", "grafana.json")
    assert.strictEqual(Path.dirname(dashboard ?? ""), provided.providers[0]!.options.path)
    assert.match(
      mountOf("grafana", "grafana/datasource.yml") ?? "",
      /^\/etc\/grafana\/provisioning\/datasources\/.*\.yml$/
    )
    assert.match(
      mountOf("grafana", "grafana/dashboards.yml") ?? "",
      /^\/etc\/grafana\/provisioning\/dashboards\/.*\.yml$/
    )
    for (const { volumes = [] } of Object.values(compose.services)) {
      for (const volume of volumes.filter((each) => each.startsWith("./") && !each.startsWith("./gateway.json:"))) {
        assert.isTrue(Fs.existsSync(Path.join(folder, volume.split(":")[0]!)), volume)
      }
    }
  })
})
