import * as Gateway from "@floodgate/gateway"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { ProviderServer } from "floodgate/testing/server"
import { execFileSync } from "node:child_process"
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { applyRecipe, recipes, skill } from "../../scripts/applyRecipe.ts"
import { root } from "../support/modules.ts"
import { applied, counted, environmentAt, inClients, inRoot, limits, run } from "../support/recipes.ts"

const gatewayProgram = "#!/bin/sh\nexec ./agents\n"

describe("the skill for coding agents", () => {
  it("says its name and when to use it, as agents look for it", () => {
    const [, header] = /^---\n(.*?)\n---\n/s.exec(skill)!
    assert.match(header!, /^name: floodgate\ndescription: .+ Use when .+$/)
    // Agents do not load longer ones.
    assert.isAtMost(header!.split("description: ")[1]!.length, 1_024)
  })

  it("has a program for each recipe, and an entry in its table", () => {
    const tried = [...inRoot, ...inClients].map(({ recipe }) => recipe)
    assert.sameMembers([...tried, "Gateway"], [...recipes.keys()])
    for (const name of recipes.keys()) assert.include(skill, `| [${name}](#`)
  })

  it("plugs clients in as the guides do", () => {
    const guides = ["clients.md", "gateway.md", "guides/effect-app.md"]
      .map((page) => readFileSync(join(root, "docs", page), "utf8"))
      .join("\n")
    const lines = [...recipes.values()]
      .flat()
      .flatMap(({ after }) => after.split("\n"))
      .filter((line) => /floodgate\.|LlmClient\.layer|8788|maxRetries/.test(line))
      .map((line) => line.trim().replace(/^export /, ""))
    assert.isAbove(lines.length, 8)
    assert.deepStrictEqual(
      lines.filter((line) => !guides.includes(line)),
      []
    )
  })

  it("does not change a program that has no such client", () => {
    assert.throws(() => applyRecipe("openai", "const client = new OpenAI({ apiKey })"), /expected once, found 0 times/)
    assert.throws(() => applyRecipe("cohere", ""), /no recipe cohere; there are Anthropic's SDK, openai/)
  })

  for (const small of inRoot) {
    it.live(`${small.recipe}: the call is counted by the budget`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* applied(small, root), { seen: small.calls, counted: 1 })
      })
    )
  }

  it.live("Gateway: the calls of another program are counted by the gateway", () => {
    const folder = mkdtempSync(join(tmpdir(), "floodgate-skill-"))
    const live = Governor.layer().pipe(Layer.provideMerge(Budget.layer({ limits })))
    return Effect.gen(function* () {
      const { url: upstream } = yield* ProviderServer.make({})
      const upstreams = { anthropic: upstream, openai: upstream, gemini: upstream }
      const gateway = yield* Gateway.make({ upstreams, drain: "20 millis" })
      // It stands for a program in another language, which finds its provider in the environment.
      const agents = join(folder, "agents")
      const [client] = inRoot
      writeFileSync(
        agents,
        `#!/bin/sh\ncd '${root}'\nexec '${process.execPath}' --input-type=module -e '${client!.program}'\n`
      )
      chmodSync(agents, 0o755)
      const script = applyRecipe("Gateway", gatewayProgram).replaceAll("http://127.0.0.1:8788", gateway.url)
      yield* run("/bin/sh", ["-c", script], folder, environmentAt("http://127.0.0.1:9"))
      const { status } = yield* Budget.TokenBudget
      assert.strictEqual(counted(yield* status), 1)
    }).pipe(Effect.provide(live), Effect.ensuring(Effect.sync(() => rmSync(folder, { recursive: true }))))
  })

  it("is applied by the script", () => {
    const file = join(mkdtempSync(join(tmpdir(), "floodgate-skill-")), "start.sh")
    writeFileSync(file, gatewayProgram)
    const script = [join(root, "scripts/applyRecipe.ts"), "Gateway", file]
    assert.strictEqual(
      execFileSync(process.execPath, script, { encoding: "utf8" }),
      applyRecipe("Gateway", gatewayProgram)
    )
    rmSync(join(file, ".."), { recursive: true })
  })
})
