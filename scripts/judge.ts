/**
 * Says whether a hot path has become slower or allocates more than at an earlier commit: `npm run judge`.
 *
 *     npm run judge                          the working tree beside the commit before it
 *     npm run judge -- --against v0.4.0      beside another commit
 *     npm run judge -- --only create,fetch   some paths
 *     npm run judge -- --record              appends what was found to benchmark/figures.jsonl
 *
 * The two checkouts run in processes of their own and take turns of some 50 ms, so that whatever else the machine does meets both.
 * What counts is the processor time of a process, and the bytes that it allocates. One process is up to a tenth faster or slower than
 * the next from the same code, because of where its code and its heap lie; so there are several pairs of processes. A ratio is the
 * median of the turns of a pair. The figure is the median of the pairs, and its spread the range of the middle half of them.
 *
 * Each turn allocates less than the young space holds, so nothing is collected meanwhile, and the growth of the heap is what was
 * allocated. That hardly varies, and shows a change even on a busy machine.
 *
 * A path is worse if its median is above 1 by more than the spread and by more than what two processes of one commit show
 * (`noise`). It exits with 1 then. Processor time is only judged if nothing else runs (a load of at most 0.5 at the start); bytes
 * always are.
 */
import { type ChildProcess, execFileSync, fork, spawnSync } from "node:child_process"
import { appendFileSync, cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from "node:fs"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { cpus, loadavg } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { Pool } from "undici"
import { spreadOf, tableOf } from "../benchmark/support/inTurns.ts"
import type { Figure, Path, Question } from "../benchmark/judge/models.ts"

const root = join(import.meta.dirname, "..")
const { values } = parseArgs({
  options: {
    against: { type: "string" },
    only: { type: "string" },
    pairs: { type: "string" },
    turns: { type: "string" },
    record: { type: "boolean", default: false },
    "any-load": { type: "boolean", default: false }
  }
})

/** What two processes of one commit differ by at most, measured with `--against HEAD` on a quiet machine. */
const noise = { micros: 0.02, bytes: 0.01 }
const maxLoad = 0.5

const all: ReadonlyArray<Path> = [
  { name: "create", count: 1_200 },
  { name: "withReservation", count: 2_000 },
  { name: "fetch, 4 KB", count: 200 },
  { name: "fetch, 100 KB", count: 60 },
  { name: "stream of 500 events", count: 10 },
  { name: "gateway, 4 KB", count: 250, sentences: 152 },
  { name: "gateway, 100 KB", count: 60, sentences: 3_840 },
  { name: "gateway, 400 KB", count: 24, sentences: 15_360 }
]
const load = loadavg()[0]!
const isQuiet = load <= maxLoad || values["any-load"]
// Allocations hardly vary, so few turns show them.
const pairs = Number(values.pairs ?? (isQuiet ? 6 : 2))
const turns = Number(values.turns ?? (isQuiet ? 24 : 6))
if (!isQuiet) {
  console.log(
    `judge: the load is ${load.toFixed(2)}, above ${maxLoad}: processor time cannot be judged, only allocations are`
  )
}

const wanted = values.only?.split(",")
const paths = all.filter(
  ({ name, sentences }) =>
    (wanted === undefined || wanted.some((part) => name.includes(part))) && (isQuiet || sentences === undefined)
)
if (paths.length === 0) {
  console.error(`judge: --only ${values.only}: no such path; known are ${all.map(({ name }) => name).join("; ")}`)
  process.exit(2)
}

const git = (...args: ReadonlyArray<string>): string =>
  execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim()

// -----------------------------------------------------------------------------
// The other checkout
// -----------------------------------------------------------------------------

/** Beside a clean tree its parent, beside a changed one its commit. */
const isChanged = git("status", "--porcelain", "--untracked-files=no") !== ""
const wantedCommit = values.against ?? (isChanged ? "HEAD" : "HEAD^")
const resolved = spawnSync("git", ["rev-parse", "--short", "--verify", "--quiet", `${wantedCommit}^{commit}`], {
  cwd: root,
  encoding: "utf8"
})
if (resolved.status !== 0) {
  console.log(
    `judge: there is no commit ${wantedCommit} here, so there is nothing to compare with: fetch more of the history`
  )
  process.exit(values.against === undefined ? 0 : 2)
}
const against = resolved.stdout.trim()

// Inside the root, so that packages are found; not in node_modules, where Node does not strip types.
const other = join(root, ".judge", against)

const checkOut = (): void => {
  rmSync(other, { recursive: true, force: true })
  mkdirSync(other, { recursive: true })
  const archive = execFileSync("git", ["archive", against], { cwd: root, maxBuffer: 2 ** 30 })
  execFileSync("tar", ["-x", "-C", other], { input: archive })
  mkdirSync(join(other, "node_modules/@floodgate"), { recursive: true })
  for (const name of readdirSync(join(other, "packages"))) {
    symlinkSync(join(other, "packages", name), join(other, "node_modules/@floodgate", name))
  }
  symlinkSync(other, join(other, "node_modules/floodgate"))
  cpSync(join(root, "benchmark/judge"), join(other, "benchmark/judge"), { recursive: true })
}

// -----------------------------------------------------------------------------
// The provider behind the gateways
// -----------------------------------------------------------------------------

const sentence = "A question of some length. "
const answer = JSON.stringify({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5",
  stop_reason: "end_turn",
  content: [{ type: "text", text: sentence.repeat(140) }],
  usage: { input_tokens: 500, output_tokens: 350 }
})
const provider = Http.createServer((request, response) => {
  request.resume()
  request.on("end", () => response.writeHead(200, { "content-type": "application/json" }).end(answer))
})
const bodyOf = (sentences: number): string =>
  JSON.stringify({
    model: "claude-sonnet-5",
    max_tokens: 400,
    messages: Array.from({ length: 8 }, () => ({ role: "user", content: sentence.repeat(sentences / 8) }))
  })
const headers = { "content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01" }

// -----------------------------------------------------------------------------
// Turns
// -----------------------------------------------------------------------------

interface Side {
  readonly child: ChildProcess
  readonly pool: Pool
}

const received = <A>(child: ChildProcess): Promise<A> =>
  new Promise((resolve, reject) => {
    const ended = (code: number | null) => reject(new Error(`judge: a worker ended with ${code}`))
    child.once("exit", ended)
    child.once("message", (message) => {
      child.off("exit", ended)
      resolve(message as A)
    })
  })

const begin = async (checkout: string, url: string): Promise<Side> => {
  const child = fork(join(checkout, "benchmark/judge/worker.ts"), [url], {
    cwd: checkout,
    execArgv: [
      "--conditions=@floodgate/source",
      "--expose-gc",
      "--max-semi-space-size=256",
      "--min-semi-space-size=256"
    ]
  })
  return { child, pool: new Pool(await received<string>(child), { connections: 16 }) }
}

const ask = ({ child }: Side, question: Question): Promise<Figure> => {
  child.send(question)
  return received(child)
}

/** What one operation took of a side in one turn. */
const turn = async (side: Side, { count, name, sentences }: Path): Promise<Figure> => {
  const question = { path: name, count }
  if (sentences === undefined) {
    const { bytes, micros } = await ask(side, question)
    return { micros: micros / count, bytes: bytes / count }
  }
  const body = bodyOf(sentences)
  const before = await ask(side, question)
  let left = count
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      while (left-- > 0) {
        const response = await side.pool.request({ path: "/v1/messages", method: "POST", headers, body })
        await response.body.dump({ limit: 1e9 })
        if (response.statusCode !== 200) throw new Error(`judge: ${name}: status ${response.statusCode}`)
      }
    })
  )
  return { micros: ((await ask(side, question)).micros - before.micros) / count, bytes: 0 }
}

/** What a pair of processes says about a path. */
interface Found {
  readonly micros: number
  readonly byMicros: number
  readonly byBytes: number
}

const median = (list: ReadonlyArray<number>): number => spreadOf(list).median

const compare = async (sides: readonly [Side, Side], path: Path, turns: number): Promise<Found> => {
  const ours: Array<Figure> = []
  const theirs: Array<Figure> = []
  // The first third compiles.
  const warmups = Math.ceil(turns / 3)
  for (let round = -warmups; round < turns; round++) {
    const first = round % 2 === 0
    const one = await turn(sides[first ? 0 : 1], path)
    const two = await turn(sides[first ? 1 : 0], path)
    if (round < 0) continue
    ours.push(first ? one : two)
    theirs.push(first ? two : one)
  }
  const ratio = (of: (figure: Figure) => number): number =>
    median(ours.map((figure, i) => of(figure) / of(theirs[i]!)).filter(Number.isFinite))
  return {
    micros: median(ours.map(({ micros }) => micros)),
    byMicros: ratio((f) => f.micros),
    byBytes: ratio((f) => f.bytes)
  }
}

// -----------------------------------------------------------------------------
// Verdict
// -----------------------------------------------------------------------------

const isWorse = (ratios: ReadonlyArray<number>, least: number): boolean => {
  const { high, low, median } = spreadOf(ratios)
  return median - 1 > Math.max(least, (high - low) / 2)
}

const shown = (ratios: ReadonlyArray<number>): string => {
  if (ratios.length === 0) return ""
  const { high, low, median } = spreadOf(ratios)
  return `${median.toFixed(3)} (${low.toFixed(3)}-${high.toFixed(3)})`
}

checkOut()
await new Promise<void>((resolve) => provider.listen({ port: 0, host: "127.0.0.1", backlog: 1_024 }, resolve))
const url = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`
const found = new Map(paths.map(({ name }) => [name, [] as Array<Found>]))
const children: Array<ChildProcess> = []
process.once("exit", () => {
  for (const child of children) child.kill()
})
for (let pair = 1; pair <= pairs; pair++) {
  process.stderr.write(`pair ${pair} of ${pairs}\n`)
  const sides = [await begin(root, url), await begin(other, url)] as const
  children.push(...sides.map(({ child }) => child))
  for (const path of paths) found.get(path.name)!.push(await compare(sides, path, turns))
  for (const { child, pool } of sides) {
    await pool.close()
    child.kill()
  }
}
provider.close()

const worse: Array<string> = []
const rows = paths.map(({ name, sentences }) => {
  const pairs = found.get(name)!
  const byMicros = pairs.map((each) => each.byMicros)
  const byBytes = sentences === undefined ? pairs.map((each) => each.byBytes) : []
  const slower = isQuiet && isWorse(byMicros, noise.micros)
  const larger = byBytes.length > 0 && isWorse(byBytes, noise.bytes)
  if (slower || larger) worse.push(name)
  const verdict = [slower && "slower", larger && "allocates more", !isQuiet && "time not judged"]
  return [
    name,
    median(pairs.map(({ micros }) => micros)).toFixed(1),
    shown(byMicros),
    shown(byBytes),
    verdict.filter(Boolean).join(", ")
  ]
})
const commit = `${git("rev-parse", "--short", "HEAD")}${isChanged ? " with changes" : ""}`
console.log(
  `${commit} beside ${against}; Node ${process.versions.node}, ${cpus()[0]?.model}, load ${load.toFixed(2)} before\n`
)
console.log(tableOf(["path", "us", "time to it", "bytes to it", ""], rows))
if (values.record && isQuiet) {
  const figures = Object.fromEntries(
    paths.map(({ name }) => {
      const pairs = found.get(name)!
      const { high, low, median: ratio } = spreadOf(pairs.map(({ byMicros }) => byMicros))
      return [
        name,
        {
          us: +median(pairs.map(({ micros }) => micros)).toFixed(1),
          ratio: +ratio.toFixed(3),
          low: +low.toFixed(3),
          high: +high.toFixed(3)
        }
      ]
    })
  )
  const file = join(root, "benchmark/figures.jsonl")
  const line = {
    commit,
    against,
    node: process.versions.node,
    processor: cpus()[0]?.model,
    load: +load.toFixed(2),
    figures
  }
  appendFileSync(file, `${JSON.stringify(line)}\n`)
  console.log(`\nappended to ${existsSync(file) ? "benchmark/figures.jsonl" : file}`)
}
rmSync(join(root, ".judge"), { recursive: true, force: true })
if (worse.length > 0) console.error(`\njudge: worse than ${against}: ${worse.join("; ")}`)
process.exit(worse.length > 0 ? 1 : 0)
