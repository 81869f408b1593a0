/**
 * `floodgate run --report` on a real run, in a real browser.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import type { Report } from "@floodgate/lab/internal"
import * as Packed from "../../../lab/src/report/packed.ts"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { hostname, tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { chromium } from "playwright-core"
import * as Browser from "../../../../test/support/browser.ts"
import { root } from "../../../../test/support/modules.ts"

const at = mkdtempSync(join(tmpdir(), "floodgate-"))
const file = join(at, "report.html")

const floodgate = async (args: ReadonlyArray<string>) => {
  const child = spawn(process.execPath, ["--conditions=@floodgate/source", "packages/cli/src/bin.ts", ...args], {
    cwd: root,
    env: { PATH: process.env.PATH },
    stdio: ["ignore", "ignore", "pipe"]
  })
  let stderr = ""
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()))
  const [code] = (await once(child, "close")) as [number | null]
  return { code, stderr }
}

const run = (out: string, report: string) =>
  floodgate(
    `run ${at}/docs --prompt x --agents 3 --max-tokens 50 --quiet --input-tokens-per-minute 100000 --out ${at}/${out} --report ${report}`.split(
      " "
    )
  )

describe("floodgate run --report", () => {
  beforeAll(() => {
    mkdirSync(join(at, "docs"))
    for (let n = 0; n < 3; n++) {
      writeFileSync(join(at, "docs", `${n}.md`), `Document ${n} says that the gate opens.\n\n`.repeat(300))
    }
  })
  afterAll(() => rmSync(at, { recursive: true, force: true }))

  it("has each agent's calls and waits, the budget's level and the rate against the limit", async () => {
    const { code, stderr } = await run("out", file)
    assert.strictEqual(stderr, `wrote ${file}\n`)
    assert.strictEqual(code, 0)
    const json = /<script type="application\/json" id="figures">(.*)<\/script>/.exec(readFileSync(file, "utf8"))![1]!
    const [figures] = (JSON.parse(json) as { figures: ReadonlyArray<Packed.Packed> }).figures.map(Packed.unpack)
    assert.deepStrictEqual(figures!.agents, ["agent-1", "agent-2", "agent-3", "orchestrator"])
    // The orchestrator does not count as one of the requested agents.
    assert.strictEqual(figures!.summary, "3 agents, 16 calls; model claude-sonnet-5")
    const html = readFileSync(file, "utf8")
    assert.match(html, /<p class="verdict">Done: all 16 calls answered in [\d.]+ s, with no 429\.<\/p>/)
    for (const fact of ["made", "by", "command", "model", "provider", "limits"])
      assert.include(html, `<dt>${fact}</dt>`)
    assert.include(html, `<dd>floodgate run ${at}/docs --prompt x --agents 3`)
    assert.include(html, "100,000 input tokens/min (bucket of 100,000)")
    assert.match(figures!.provider, /^simulated, embedded in the command, at http/)
    assert.strictEqual(figures!.dimension, "input tokens")
    assert.approximately(figures!.limitPerSecond, 100_000 / 60, 1)
    const [{ bars, latencies, levels, rates }] = figures!.runs as [Report.Figures.RunFigures]
    assert.strictEqual(bars.filter(({ what }) => what === "runs").length, 16)
    assert.isTrue(bars.some(({ what }) => what === "waits"))
    assert.strictEqual(latencies.length, 16)
    assert.isAbove(levels.length, 2)
    const sent = rates.reduce((sum, { from, perSecond, to }) => sum + perSecond * (to - from), 0)
    const results = readFileSync(join(at, "out/results.jsonl"), "utf8").trim().split("\n")
    const used = results.reduce(
      (sum, line) => sum + (JSON.parse(line) as { usage: { inputTokens: number } }).usage.inputTokens,
      0
    )
    assert.approximately(sent, used, 0.01 * used)
  }, 60_000)

  it.skipIf(Browser.skipped !== undefined)(
    "draws every chart in a browser, wide and narrow, without an error or a request",
    async () => {
      const args = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
      const browser = await chromium.launch({ executablePath: Browser.executablePath, args })
      for (const width of [1280, 400]) {
        const page = await browser.newPage({ viewport: { width, height: 900 } })
        const problems: Array<string> = []
        page.on("console", (message) => problems.push(message.text()))
        page.on("pageerror", (error) => problems.push(String(error)))
        page.on("request", (request) => {
          if (!/^(file|data):/.test(request.url())) problems.push(request.url())
        })
        await page.goto(pathToFileURL(file).href)
        await page.waitForSelector("html[data-drawn]")
        const shapes = await page.$$eval("[data-chart]", (places) =>
          places.map((place) => place.querySelectorAll("svg rect, svg path, svg line, svg circle").length)
        )
        assert.strictEqual(shapes.length, 4)
        for (const count of shapes) assert.isAbove(count, 3)
        assert.isAtMost(await page.evaluate("document.documentElement.scrollWidth"), width)
        assert.deepStrictEqual(problems, [])
        if (process.env["FLOODGATE_SCREENSHOTS"] !== undefined) {
          await page.screenshot({
            path: join(process.env["FLOODGATE_SCREENSHOTS"], `run-${width}.png`),
            fullPage: true
          })
        }
        await page.close()
      }
      await browser.close()
    },
    60_000
  )

  it("stays unchanged if another run of the same name does not begin", async () => {
    const before = join(at, "before.html")
    writeFileSync(before, "of a run that goes on")
    mkdirSync(join(at, "held"))
    writeFileSync(join(at, "held/run.lock"), `${process.pid} ${hostname()} ${Date.now()}\n`)
    const { code, stderr } = await run("held", before)
    assert.strictEqual(code, 3)
    assert.match(stderr, /^floodgate: another run \(process \d+\) writes to .*\n$/)
    assert.strictEqual(readFileSync(before, "utf8"), "of a run that goes on")
  })

  it("that cannot be written fails in one line, before any call is made", async () => {
    const { code, stderr } = await run("none", join(at, "docs/0.md/report.html"))
    assert.strictEqual(code, 3)
    assert.match(stderr, /^floodgate: cannot write .*choose another --report\n$/)
    assert.isFalse(existsSync(join(at, "none")))
  })
})

if (Browser.skipped !== undefined) console.warn(`SKIPPED: a report in a browser, because ${Browser.skipped}`)
