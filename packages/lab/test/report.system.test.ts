/**
 * The report in a real browser.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Forecast from "floodgate/Forecast"
import { Race, Report, Scenario, Scenarios, Strategies } from "@floodgate/lab/internal"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as Plot from "@observablehq/plot"
import { parseHTML } from "linkedom"
import * as Playwright from "playwright-core"
import * as Browser from "../../../test/support/browser.ts"
import * as Packed from "../src/report/packed.ts"

const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync"
]

const figuresOf = (scenario: Scenario.Scenario, names: ReadonlyArray<string>) =>
  Effect.map(
    Race.race(
      scenario,
      Strategies.all.filter(({ name }) => names.includes(name))
    ),
    (runs) => Report.Figures.scenarioFigures(scenario, runs)
  )

const render = (title: string, figures: ReadonlyArray<Report.Figures.ScenarioFigures>): string =>
  Report.Html.render({ title, intro: Report.Html.raceIntro, sections: figures.map(Report.Html.ofScenario) })

const scenarios = Effect.all([
  figuresOf(Scenario.make({ maxSeconds: 300 }), [
    "fixed-retry",
    "fixed-retry-forever",
    "incident-fix",
    "floodgate",
    "oracle"
  ]),
  figuresOf(Scenarios.byName("many", { agents: 32, calls: 4 })!, ["sdk-2", "floodgate"])
])

describe("Report.Html", () => {
  it.effect("is one file that loads nothing and contains the figures and the provider models", () =>
    Effect.gen(function* () {
      const html = render('A "title" <b>', yield* scenarios)
      assert.include(html, "A &quot;title&quot; &lt;b&gt;")
      assert.include(html, "rejections charged (1 request and 5 % of the tokens)")
      assert.notMatch(html, /<(?:script|img|iframe)[^>]+src=|<link[^>]+href="(?!data:)/)
      const figures = /<script type="application\/json" id="figures">(.*)<\/script>/.exec(html)![1]!
      assert.strictEqual(JSON.parse(figures).figures[0].results.length, 5)
    })
  )
})

describe("figures in a page", () => {
  it.effect("are small, and unpack to the same figures", () =>
    Effect.gen(function* () {
      for (const figures of yield* scenarios) {
        const packed = JSON.stringify(Packed.pack(figures))
        assert.isBelow(packed.length, 0.4 * JSON.stringify(figures).length)
        const { runs, ...rest } = Packed.unpack(JSON.parse(packed))
        assert.deepInclude(figures, rest)
        const inOrder = (bars: ReadonlyArray<Report.Figures.Bar>) => Map.groupBy(bars, ({ agent }) => agent)
        for (const [index, run] of runs.entries()) {
          const { bars, ...others } = figures.runs[index]!
          assert.deepStrictEqual(inOrder(run.bars), inOrder(bars))
          assert.deepInclude(run, others)
        }
      }
    })
  )
})

describe("a report of several races", () => {
  it.effect("begins with the result in a sentence and on one screen, and says how it was made", () =>
    Effect.gen(function* () {
      const figures = yield* scenarios
      const html = Report.Html.render({
        title: "The lab",
        intro: Report.Html.raceIntro,
        sections: figures.map(Report.Html.ofScenario),
        matrix: [figures[0]],
        verdict: { text: "All is well & <done>.", tiles: [{ value: "2 of 2", label: "scenarios" }] },
        provenance: [["command", "floodgate lab"]]
      })
      const at = (text: string): number => {
        assert.include(html, text)
        return html.indexOf(text)
      }
      const order = [
        '<p class="verdict">All is well &amp; &lt;done&gt;.</p>',
        "<b>2 of 2</b>",
        "<dt>command</dt><dd>floodgate lab</dd>",
        'class="matrix"',
        '<details class="scenario" id="incident">'
      ].map(at)
      assert.deepStrictEqual(
        order.toSorted((a, b) => a - b),
        order
      )
      // Each strategy is explained in its own row.
      assert.include(html, 'incident-fix<span class="why">the incident&#39;s fix'.replace("&#39;", "'"))
    })
  )
})

describe("Report.Verdict", () => {
  const result = (strategy: string, more: Partial<Race.RaceResult> = {}): Race.RaceResult => ({
    strategy,
    makespanSeconds: 40,
    floorSeconds: 38,
    ratio: 1.05,
    rejections: 0,
    retries: 0,
    failedCalls: 0,
    failedAgents: 0,
    p50Seconds: 2,
    p99Seconds: 20,
    fairness: 1,
    meanEndSeconds: 30,
    tokensUsed: 2_472_000,
    finished: true,
    ...more
  })
  const of = (...results: ReadonlyArray<Race.RaceResult>): Report.Figures.ScenarioFigures => ({
    name: "incident",
    summary: "",
    provider: "",
    floorSeconds: 38,
    dimension: "tokens",
    limitPerSecond: 60_000,
    calls: 60,
    agents: [],
    results,
    runs: []
  })

  it("states the result of the library, which strategies lost calls, and which were faster", () => {
    const { text, tiles } = Report.Verdict.ofRace(
      of(
        result("retry-after", { failedCalls: 55 }),
        result("sdk-2", { failedCalls: 45 }),
        result("effect-rate-limiter", { makespanSeconds: 36 }),
        result("floodgate", { rejections: 1 }),
        result("oracle", { makespanSeconds: 32 })
      )
    )
    assert.strictEqual(
      text,
      "Floodgate answered all 60 calls in 40.0 s, 25 % behind the oracle, with 1 rejection (429). " +
        "Others lost calls: sdk-2 45 and retry-after 55. Quicker: effect-rate-limiter in 36.0 s."
    )
    assert.deepStrictEqual(
      tiles.map(({ value }) => value),
      ["60 of 60", "40.0 s", "1", "2.0 s", "2.47M"]
    )
    assert.strictEqual(tiles[0]!.tone, "good")
  })

  it("states the time of the library without limits and counts", () => {
    const installed = result("floodgate-as-installed", { makespanSeconds: 58.4, rejections: 11 })
    assert.strictEqual(
      Report.Verdict.ofRace(of(installed, result("floodgate"))).text,
      "Floodgate answered all 60 calls in 40.0 s, with no 429. " +
        "With default settings it takes 58.4 s, with 11 rejections (429)."
    )
  })

  it("also says what the library lost, and that it did not finish", () => {
    const of1 = (more: Partial<Race.RaceResult>) => Report.Verdict.ofRace(of(result("floodgate", more)))
    assert.strictEqual(of1({ failedCalls: 3 }).text, "Floodgate lost 3 of 60 calls.")
    assert.strictEqual(of1({ failedCalls: 3 }).tiles[0]!.tone, "bad")
    assert.strictEqual(of1({ finished: false, failedCalls: 3 }).text, "Floodgate had not finished after 40.0 s.")
  })

  it("names the fastest strategy if the library is not among them", () => {
    const { text } = Report.Verdict.ofRace(of(result("sdk-10", { makespanSeconds: 90 }), result("semaphore")))
    assert.strictEqual(text, "Semaphore answered all 60 calls in 40.0 s, with no 429.")
  })

  it("counts the scenarios in which each did all of the work", () => {
    const good = of(result("sdk-10", { failedCalls: 9 }), result("floodgate"), result("oracle"))
    const far = of(result("sdk-10"), result("floodgate", { makespanSeconds: 60 }), result("oracle"))
    const { text, tiles } = Report.Verdict.ofRaces([good, { ...far, name: "outage" }])
    assert.strictEqual(
      text,
      "Floodgate did all of the work in 2 of 2 scenarios, within 5 % of the oracle in 1; it is furthest behind in outage: " +
        "50 %. Of the others, sdk-10 did all of the work in 1. Quicker than Floodgate with limits and token counts: sdk-10 in outage (40.0 s)."
    )
    assert.deepStrictEqual(
      tiles.map(({ value }) => value),
      ["2 of 2"]
    )
  })

  it("names every other strategy that did as much as the best of them, the fastest first", () => {
    const race = of(
      result("sdk-10", { makespanSeconds: 90 }),
      result("sdk-2", { failedCalls: 1 }),
      result("semaphore", { makespanSeconds: 70 }),
      result("hand-written", { makespanSeconds: 80 }),
      result("floodgate"),
      result("oracle")
    )
    const { text } = Report.Verdict.ofRaces([race])
    assert.include(text, "Of the others, semaphore, hand-written and sdk-10 did all of the work in 1.")
    const lost = of(result("sdk-2", { failedCalls: 1 }), result("floodgate"), result("oracle"))
    assert.notInclude(Report.Verdict.ofRaces([lost]).text, "Of the others")
  })

  it("begins with the library without limits and counts, and the strategies that are faster than that", () => {
    const race = of(
      result("bottleneck-tuned", { makespanSeconds: 44 }),
      result("floodgate-as-installed", { makespanSeconds: 50 }),
      result("floodgate"),
      result("oracle")
    )
    const { text, tiles } = Report.Verdict.ofRaces([race])
    assert.strictEqual(
      text,
      "With default settings, Floodgate did all of the work in 1 of 1 scenario, within 5 % of the oracle in 0; it is furthest behind in " +
        "incident: 25 %. With the limits and the token counts, it did all of the work in 1 of 1 scenario, within 5 % of the " +
        "oracle in 1. Of the others, bottleneck-tuned did all of the work in 1. " +
        "Quicker than Floodgate with default settings: bottleneck-tuned in incident (44.0 s)."
    )
    assert.strictEqual(tiles[0]!.label, "scenarios done by floodgate\u2011as\u2011installed")
  })
})

describe("Report.Forecast", () => {
  const barsOf = (agents: number, calls: number) => {
    const workload = Forecast.uniform({ agents, calls, first: { inputTokens: 1_000, outputTokens: 100 } })
    const limits = { requests: { perMinute: 600 } }
    const forecast = Forecast.make(workload, { limits })
    const { figures } = Report.Forecast.section({
      summary: "",
      verdict: { text: "", tiles: [] },
      answers: [{ tier: "one", limits, forecast }],
      heads: [],
      rows: [],
      notes: []
    })
    return { figures, bars: Map.groupBy(figures.runs[0]!.bars, ({ agent }) => agent) }
  }

  /** Whether nothing is between the bars of an agent. */
  const hasGaps = (bars: ReadonlyArray<Report.Figures.Bar>): boolean =>
    bars.some(({ from }, index) => Math.abs(from - (bars[index - 1]?.to ?? 0)) > 0.002)

  it("shows everything that the selected agents do if there are many", () => {
    const { bars, figures } = barsOf(1_000, 10)
    assert.strictEqual(figures.agents.length, 77)
    assert.deepStrictEqual([...bars.keys()].sort(), [...figures.agents].sort())
    for (const each of bars.values()) {
      assert.strictEqual(each.filter(({ what }) => what === "runs").length, 10)
      assert.isFalse(hasGaps(each))
    }
  })

  it("merges very many calls without gaps, and states their total waits and runs", () => {
    const { bars } = barsOf(2, 5_000)
    for (const each of bars.values()) {
      assert.isBelow(each.length, 4_000)
      assert.isFalse(hasGaps(each))
      const ran = each.reduce((sum, { from, to, what }) => (what === "runs" ? sum + to - from : sum), 0)
      assert.closeTo(ran, 5_000 * 1.51, 1)
    }
  })
})

describe("Report.Charts", () => {
  // Regression: lines with lost calls rose to 100 %, and lines of equally fast strategies hid one another.
  it.effect("draws the latency of all calls, with every line visible", () =>
    Effect.gen(function* () {
      const [incident] = yield* scenarios
      const { document } = parseHTML("<!doctype html><html><body></body></html>")
      const chart = Report.Charts.make(Plot).latency(incident, { width: 760, document })
      const lines = [...chart.outerHTML.matchAll(/<g [^>]*stroke="var\(--c(\d)\)"[^>]*><path d="([^"]*)"/g)]
      const dashes = [...chart.outerHTML.matchAll(/stroke-dasharray="([^"]*)"/g)].map(([, dash]) => dash)
      assert.strictEqual(lines.length, 5)
      assert.strictEqual(new Set(dashes).size, 4)
      const [bottom, top] = [220, 30]
      for (const [, color, path] of lines) {
        const { done, planned } = incident.runs[Number(color) - 1]!
        const highest = Math.min(...[...path!.matchAll(/[,V]([\d.]+)/g)].map(([, y]) => Number(y)))
        assert.closeTo(highest, bottom - ((bottom - top) * done) / planned, 0.1)
      }
    })
  )
})

describe("Report.Svg", () => {
  it.effect("draws each chart as a standalone file", () =>
    Effect.gen(function* () {
      const [incident] = yield* scenarios
      const files = Report.Svg.ofScenario(incident)
      assert.strictEqual(files.length, 1 + 2 * 5)
      for (const { name, text } of files) {
        assert.match(text, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/, name)
        assert.include(text, "prefers-color-scheme:dark")
        assert.match(text, /<\/svg>$/)
        assert.notInclude(text, "NaN", name)
      }
    })
  )
})

describe.skipIf(Browser.skipped !== undefined)("a report in Chromium", () => {
  let browser: Playwright.Browser
  const folder = mkdtempSync(join(tmpdir(), "floodgate-report-"))
  const file = join(folder, "report.html")

  beforeAll(async () => {
    writeFileSync(file, render("The lab", await Effect.runPromise(scenarios)))
    browser = await Playwright.chromium.launch({ executablePath: Browser.executablePath, args: flags })
  }, 60_000)
  afterAll(async () => {
    await browser?.close()
    rmSync(folder, { recursive: true })
  })

  const open = async (width: number, colorScheme: "light" | "dark") => {
    const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme, reducedMotion: "reduce" })
    const problems: Array<string> = []
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") problems.push(message.text())
    })
    page.on("pageerror", (error) => problems.push(String(error)))
    page.on("request", (request) => {
      if (request.url() !== pathToFileURL(file).href && !request.url().startsWith("data:")) problems.push(request.url())
    })
    await page.goto(pathToFileURL(file).href)
    await page.waitForSelector("html[data-drawn]")
    return { page, problems }
  }

  /** Every place of a chart, and whether something is drawn in it that can be seen and does not stick out. */
  const chartsOf = (page: Playwright.Page) =>
    page.$$eval("[data-chart]", (places) =>
      places.map((place) => {
        const svg = place.querySelector("svg")
        const box = svg?.getBoundingClientRect()
        const room = place.getBoundingClientRect()
        return {
          chart: place.getAttribute("data-chart"),
          shapes: svg?.querySelectorAll("rect, path, line, circle, text").length ?? 0,
          fits: box !== undefined && box.height > 50 && box.width > 100 && box.width <= room.width + 1
        }
      })
    )

  for (const [width, scheme] of [
    [1280, "light"],
    [400, "light"],
    [1280, "dark"],
    [400, "dark"]
  ] as const) {
    it(`draws every chart at ${width} pixels, ${scheme}, without an error or a request`, async () => {
      const { page, problems } = await open(width, scheme)
      const charts = await chartsOf(page)
      assert.strictEqual(charts.length, 10)
      for (const { chart, fits, shapes } of charts) {
        assert.isAbove(shapes, 5, chart ?? "")
        assert.isTrue(fits, `${chart} fits`)
      }
      assert.isAtMost(await page.evaluate("document.documentElement.scrollWidth"), width)
      assert.deepStrictEqual(problems, [])
      await page.close()
    }, 30_000)
  }

  it("begins with the conclusion if there are many scenarios, and draws a section when it is unfolded", async () => {
    const [incident, many] = await Effect.runPromise(scenarios)
    const lab = join(folder, "lab.html")
    const sections = [incident, many].map((figures) => Report.Html.ofScenario(Report.Figures.sketched(figures)))
    writeFileSync(lab, Report.Html.render({ title: "The lab", intro: "", sections, matrix: [incident] }))
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce" })
    const problems: Array<string> = []
    page.on("pageerror", (error) => problems.push(String(error)))
    await page.goto(pathToFileURL(lab).href)
    await page.waitForSelector("html[data-drawn]")
    assert.isAtMost(await page.evaluate<number>("document.documentElement.scrollHeight"), 1_000)
    assert.strictEqual(await page.locator("[data-chart] svg").count(), 0)
    await page.click('.matrix a[href="#incident"]')
    await page.waitForSelector("#incident [data-chart=gantt] svg rect")
    assert.strictEqual(await page.locator("#many [data-chart] svg").count(), 0)
    assert.deepStrictEqual(problems, [])
    await page.close()
  }, 30_000)

  it("explains the bar under the pointer", async () => {
    const { page, problems } = await open(1280, "light")
    const bar = page.locator('[data-chart="gantt"][data-scenario="0"] svg rect').first()
    await bar.hover()
    await page.waitForFunction(
      'document.querySelector("[data-chart=gantt] [aria-label=tip]").textContent.includes("agent-")'
    )
    assert.deepStrictEqual(problems, [])
    await page.close()
  }, 30_000)

  it("prints whole tables, and the colours of its keys", async () => {
    const { page } = await open(700, "light")
    const hidden = () =>
      page.$$eval(".scroll", (places) => places.map((place) => place.scrollWidth - place.clientWidth))
    assert.isAbove(Math.max(...(await hidden())), 0)
    await page.emulateMedia({ media: "print" })
    for (const width of await hidden()) assert.strictEqual(width, 0)
    assert.strictEqual(
      await page.evaluate('getComputedStyle(document.querySelector(".key i")).getPropertyValue("print-color-adjust")'),
      "exact"
    )
    await page.close()
  }, 30_000)

  it("is accessible by keyboard and screen reader: tables scroll, and charts have names", async () => {
    const { page } = await open(400, "light")
    const focused: Array<string | null> = []
    for (let tabs = 0; tabs < 16; tabs++) {
      await page.keyboard.press("Tab")
      focused.push(await page.evaluate("document.activeElement.getAttribute('aria-label')"))
    }
    assert.include(focused, "Table: incident")
    const names = await page.$$eval('[role="img"]', (charts) => charts.map((chart) => chart.getAttribute("aria-label")))
    assert.deepStrictEqual(names.slice(0, 3), ["How long it takes", "Agents and their calls", "What is left: tokens"])
    await page.close()
  }, 30_000)

  it("shows the chosen strategy, resizes with the window, and opens the figures", async () => {
    const { page, problems } = await open(1280, "light")
    const gantt = () => page.$eval('[data-chart="gantt"][data-scenario="0"]', (place) => place.innerHTML)
    const before = await gantt()
    await page.selectOption('select[data-scenario="0"]', { label: "fixed-retry" })
    assert.notStrictEqual(await gantt(), before)
    await page.setViewportSize({ width: 500, height: 900 })
    await page.waitForFunction('document.querySelector("[data-chart=gantt] svg").getBoundingClientRect().width < 500')
    await page.click("details.figures summary")
    // The browser reports the opening asynchronously.
    await page.waitForSelector("details.figures[open] td")
    const shown = () => page.$eval("details.figures table", (table) => table.textContent)
    assert.include(await shown(), "fixed-retry-forever")
    await page.selectOption("details.figures select", "calls")
    assert.include(await shown(), "agent-01")
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("details.figures a")])
    assert.strictEqual(download.suggestedFilename(), "incident-fixed-retry-calls.csv")
    const csv = readFileSync(await download.path(), "utf8")
    assert.match(csv, /^agent,what,from \(s\),to \(s\)\nagent-01,runs,0,/)
    assert.deepStrictEqual(problems, [])
    await page.close()
  }, 30_000)
})

if (Browser.skipped !== undefined) console.warn(`SKIPPED: the report in a browser, because ${Browser.skipped}`)
