// A button that copies a field; it shows itself where scripts run. Where the browser keeps the
// clipboard closed (plain http), the text is selected instead and the button says so.

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  const said = button.nextElementSibling;
  button.hidden = false;
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      said.textContent = "Copied.";
    } catch {
      said.textContent = "Selected: copy it with your keyboard or menu.";
    }
  });
}
