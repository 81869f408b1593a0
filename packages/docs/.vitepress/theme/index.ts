import DefaultTheme from "vitepress/theme"
import type { Theme } from "vitepress"
import { defineAsyncComponent } from "vue"
import ClientTabs from "./ClientTabs.vue"
import "./custom.css"

export default {
  extends: DefaultTheme,
  enhanceApp: ({ app }) => {
    app.component("ClientTabs", ClientTabs)
    app.component(
      "Playground",
      defineAsyncComponent(() => import("./Playground.vue"))
    )
  }
} satisfies Theme
