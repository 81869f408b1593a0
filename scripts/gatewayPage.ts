/**
 * Bundles the script of the gateway's page, packages/gateway/page, into packages/gateway/src/page/script.ts: a text that the sources,
 * the built package and a bundle of the gateway carry alike. `npm run page` writes it; test/docs.lint.test.ts compares it.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { rolldown } from "rolldown"
import { root } from "../test/support/modules.ts"

const generated = "packages/gateway/src/page/script.ts"

/** The file as it must be. */
export const render = async (): Promise<Readonly<Record<string, string>>> => {
  const bundle = await rolldown({
    input: join(root, "packages/gateway/page/main.ts"),
    resolve: { conditionNames: ["@floodgate/source", "import", "default"] }
  })
  const { output } = await bundle.generate({ format: "es", comments: false })
  await bundle.close()
  const text = output[0].code.replaceAll(/[\\`]|\$\{/g, "\\$&")
  const about = "The script of the page, bundled from packages/gateway/page by `npm run page`. Edit it there."
  return { [generated]: `/** ${about} */\nexport const script = \`${text}\`\n` }
}

if (import.meta.main) for (const [file, text] of Object.entries(await render())) writeFileSync(join(root, file), text)
