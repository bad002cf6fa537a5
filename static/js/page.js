// On every page: the theme switch without a reload, menus that close when one leaves them, and tabs
// that do not hide the one that is open.

const root = document.documentElement;

function applyTheme(theme) {
  if (theme === "system") {
    root.removeAttribute("data-theme");
    document.cookie = "theme=; path=/; max-age=0; samesite=lax";
  } else {
    root.setAttribute("data-theme", theme);
    document.cookie = `theme=${theme}; path=/; max-age=31536000; samesite=lax`;
  }
  for (const button of document.querySelectorAll("[data-theme-form] button")) {
    button.setAttribute("aria-pressed", String(button.value === theme));
  }
}

for (const form of document.querySelectorAll("[data-theme-form]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    applyTheme(event.submitter?.value ?? "system");
  });
}

const menus = [...document.querySelectorAll("[data-menu]")];

document.addEventListener("click", (event) => {
  for (const menu of menus) if (!menu.contains(event.target)) menu.open = false;
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of menus.filter((each) => each.open)) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

for (const tab of document.querySelectorAll(".tabs > [aria-current]")) {
  const bar = tab.parentElement;
  const hidden = tab.offsetLeft + tab.offsetWidth - bar.offsetLeft - bar.clientWidth;
  if (hidden > 0) bar.scrollLeft = hidden + bar.clientWidth / 4;
}
