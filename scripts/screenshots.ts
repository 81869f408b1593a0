/**
 * Takes the screenshots of the documentation from real runs against the simulated provider: the output of `try`, the live
 * view of `run`, its report, the lab's report, and the gateway's page; for desktop and phone, light and dark.
 *
 *     npm run example scripts/screenshots.ts [duel|live|report|lab|gateway]...
 *
 * It needs Chromium at /usr/bin/chromium, and `script` of util-linux for a terminal.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { type Browser, chromium, type Page } from "playwright-core"
import { escapeHtml } from "../packages/lab/src/report/escape.ts"

const root = join(import.meta.dirname, "..")
const images = join(root, "docs/images")
const at = mkdtempSync(join(tmpdir(), "floodgate-"))
// Reports print the command that made them, so its paths are kept as short as a user's.
symlinkSync(join(root, "docs"), join(at, "docs"))
const children = new Set<ChildProcess>()

const command = [process.execPath, "--conditions=@floodgate/source", join(root, "packages/cli/src/bin.ts")]

/** Starts the command, without an API key in its environment, so that it cannot spend money. */
const start = (args: ReadonlyArray<string>, program: ReadonlyArray<string> = command): ChildProcess => {
  const [file, ...before] = program
  const child = spawn(file!, [...before, ...args], {
    cwd: at,
    env: { PATH: process.env.PATH, TERM: "xterm-256color" },
    stdio: ["ignore", "pipe", "inherit"]
  })
  children.add(child)
  child.on("close", () => children.delete(child))
  return child
}

const finished = async (args: ReadonlyArray<string>): Promise<void> => {
  const [code] = await once(start(args), "close")
  if (code !== 0) throw new Error(`floodgate ${args.join(" ")} ended with ${code}`)
}

/** The address that a server prints when it is ready. */
const addressOf = async (child: ChildProcess): Promise<string> => {
  let said = ""
  for await (const chunk of child.stdout!) {
    said += chunk
    const match = /http:\/\/[\w.:]+/.exec(said)
    if (match !== null) {
      child.stdout!.resume()
      return match[0]
    }
  }
  throw new Error(`the server printed no address: ${said}`)
}

// -----------------------------------------------------------------------------
// Pictures
// -----------------------------------------------------------------------------

const widths = { desktop: 1_120, phone: 390 } as const
const schemes = ["light", "dark"] as const

/** Saves the top of a page in each size and colour scheme, once `ready` says that it is drawn. */
const shoot = async (
  browser: Browser,
  name: string,
  url: string,
  ready: (page: Page) => Promise<unknown>,
  height = 760
) => {
  for (const [size, width] of Object.entries(widths)) {
    for (const colorScheme of schemes) {
      const page = await browser.newPage({ viewport: { width, height }, colorScheme })
      await page.goto(url)
      await ready(page)
      await page.screenshot({ path: join(images, `${name}-${size}-${colorScheme}.png`) })
      await page.close()
    }
  }
}

const drawn = (page: Page): Promise<unknown> => page.waitForSelector("html[data-drawn]")

// -----------------------------------------------------------------------------
// The live view
// -----------------------------------------------------------------------------

const prompt = ["--prompt", "What must an operator know?"]

const escape = "\u001b"

/** Escape sequences other than colours. */
const other = new RegExp(`${escape}\\[(?!\\d+m)`)

/** The frames that a run draws on a terminal. */
const framesOf = async (args: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  const quoted = [...command, ...args].map((word) => `'${word}'`).join(" ")
  const child = start(["-qec", `stty cols 84 rows 40; ${quoted}`, "/dev/null"], ["script"])
  let drawn = ""
  for await (const chunk of child.stdout!) drawn += chunk
  // Each frame begins by clearing the one before, and the summary follows the last.
  return drawn
    .split("\u001b[J")
    .slice(1)
    .map((frame) => frame.split(other)[0]!.replaceAll("\r", "").trimEnd())
}

const coloured = (text: string): string =>
  text.replaceAll(`${escape}[0m`, "</span>").replaceAll(new RegExp(`${escape}\\[(\\d+)m`, "g"), '<span class="c$1">')

const terminalOf = (call: string, frame: string): string => `<!doctype html><meta charset="utf-8"><style>
:root{color-scheme:light dark}
body{margin:0;padding:20px;display:inline-block;background:light-dark(#fff,#0f141a)}
pre{margin:0;padding:16px 20px;border-radius:8px;background:light-dark(#f6f8fa,#161d26);color:light-dark(#1b2430,#e6ebf1);
border:1px solid light-dark(#dde3ea,#2d3743);font:14px/1.35 "DejaVu Sans Mono",monospace}
b{color:light-dark(#5b6774,#9aa7b4);font-weight:400}
.c31{color:light-dark(#c4262e,#ff7b7b);font-weight:600}
</style><pre><b>$ ${escapeHtml(call)}</b>

${coloured(escapeHtml(frame))}</pre>`

/** The frame from the middle of a run in which most calls wait. */
const telling = (frames: ReadonlyArray<string>): string => {
  const middle = frames.filter((frame) => {
    const [, done, all] = /(\d+) of (\d+) calls/.exec(frame) ?? []
    return Number(done) > 0.3 * Number(all) && Number(done) < 0.8 * Number(all)
  })
  const waits = (frame: string) => Number(/(\d+) waiting/.exec(frame)?.[1] ?? 0)
  return middle.toSorted((a, b) => waits(b) - waits(a))[0]!
}

/** Saves a picture of a frame in a terminal. */
const shootFrame = async (browser: Browser, name: string, call: string, frame: string) => {
  for (const colorScheme of schemes) {
    const page = await browser.newPage({ viewport: { width: widths.desktop, height: 760 }, colorScheme })
    await page.setContent(terminalOf(call, frame))
    await page.locator("body").screenshot({ path: join(images, `${name}-${colorScheme}.png`) })
    await page.close()
  }
}

const live = async (browser: Browser) => {
  const frames = await framesOf(["run", "docs", ...prompt, "--input-tokens-per-minute", "50000", "--out", "live"])
  const call = `floodgate run docs --prompt "${prompt[1]!}" --input-tokens-per-minute 50000`
  await shootFrame(browser, "live", call, telling(frames))
}

const duel = async (browser: Browser) => {
  const frames = await framesOf(["try"])
  // By then the SDK has lost its calls, and Floodgate is still working.
  await shootFrame(browser, "start", "npm start", frames[Math.floor(0.9 * frames.length)]!)
}

// -----------------------------------------------------------------------------
// Reports
// -----------------------------------------------------------------------------

const report = async (browser: Browser) => {
  const file = join(at, "report.html")
  const args = ["run", "docs", ...prompt, "--input-tokens-per-minute", "80000", "--quiet", "--report", "report.html"]
  await finished(args)
  await shoot(browser, "report", pathToFileURL(file).href, drawn, 1_370)
}

const lab = async (browser: Browser) => {
  const file = join(at, "lab.html")
  await finished(["lab", "--report", "lab.html"])
  await shoot(browser, "lab", pathToFileURL(file).href, drawn, 1_370)
}

// -----------------------------------------------------------------------------
// The gateway
// -----------------------------------------------------------------------------

const sentence = "What must an operator know about the limits of a provider? "

/** An agent that sends calls until the gateway is gone. */
const ask = async (gateway: string, agent: string, job: string, index: number) => {
  for (let call = 0; ; call++) {
    await fetch(`${gateway}/v1/messages`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        "x-api-key": "any",
        "anthropic-version": "2023-06-01",
        "x-floodgate-agent": agent,
        "x-floodgate-job": job
      },
      body: JSON.stringify({
        model: index % 4 === 3 ? "claude-haiku-4-5" : "claude-sonnet-5",
        max_tokens: 300,
        messages: [{ role: "user", content: sentence.repeat(40 + ((index * 37 + call * 23) % 160)) }]
      })
    }).then((response) => response.text())
  }
}

const gateway = async (browser: Browser) => {
  const limits = ["--input-tokens-per-minute", "60000", "--burst", "20000"]
  const provider = start(["provider", "--port", "0", ...limits, "--rejections", "charged"])
  const upstream = `anthropic=${await addressOf(provider)}`
  const proxy = start(["gateway", "--port", "0", "--upstream", upstream])
  const address = await addressOf(proxy)
  const agents = ["researcher", "reviewer", "writer", "summariser", "translator", "planner", "tester", "indexer"]
  const jobs = ["quarterly-report", "release-notes", "search-index"]
  const asking = Promise.allSettled(
    agents.map((agent, index) => ask(address, agent, jobs[Math.floor(index / 3)]!, index))
  )
  await shoot(browser, "gateway", `${address}/floodgate/`, async (page) => {
    // The page's content security policy forbids evaluated code, so this waits for elements.
    await page.locator(`#agents tbody tr >> nth=${agents.length - 1}`).waitFor()
    await page.locator("#waiting tbody tr >> nth=2").waitFor()
  })
  proxy.kill("SIGKILL")
  provider.kill("SIGTERM")
  await asking
}

// -----------------------------------------------------------------------------

const all: Readonly<Record<string, (browser: Browser) => Promise<void>>> = { duel, live, report, lab, gateway }
const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(all)

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
})
try {
  for (const name of names) {
    if (!Object.hasOwn(all, name))
      throw new Error(`unknown picture "${name}": known are ${Object.keys(all).join(", ")}`)
    await all[name]!(browser)
    console.log(`took ${name}`)
  }
} finally {
  await browser.close()
  for (const child of children) child.kill("SIGKILL")
  rmSync(at, { recursive: true, force: true })
}
