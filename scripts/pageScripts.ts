/**
 * Bundles the scripts of pages, which are TypeScript for a browser, into texts that the sources, the built packages and bundles of them
 * carry alike. `npm run page` writes them; test/docs.lint.test.ts compares them.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { rolldown } from "rolldown"
import { root } from "../test/support/modules.ts"

const files = {
  "packages/gateway/src/page/script.ts": "packages/gateway/page",
  "packages/lab/src/report/pageScript.ts": "packages/lab/page"
}

const bundled = async (folder: string): Promise<string> => {
  const bundle = await rolldown({
    input: join(root, folder, "main.ts"),
    resolve: { conditionNames: ["@floodgate/source", "import", "default"] }
  })
  const { output } = await bundle.generate({ format: "es", comments: false })
  await bundle.close()
  const text = output[0].code.replaceAll(/[\\`]|\$\{/g, "\\$&")
  return `/** The script of the page, bundled from ${folder} by \`npm run page\`. Edit it there. */\nexport const script = \`${text}\`\n`
}

/** The files as they must be. */
export const render = async (): Promise<Readonly<Record<string, string>>> =>
  Object.fromEntries(
    await Promise.all(Object.entries(files).map(async ([file, folder]) => [file, await bundled(folder)] as const))
  )

if (import.meta.main) for (const [file, text] of Object.entries(await render())) writeFileSync(join(root, file), text)
