'use strict';
const pictures = [...document.querySelectorAll('.picture')], dialog = document.querySelector('dialog');
const select = document.querySelector('select');
let shown = pictures, current = 0, view = pictures[0].querySelector('img').dataset.view;

function imageOf(picture) {  // one without a label has no errors to show
  return picture.querySelector(`img[data-view=${view}]`) || picture.querySelector('img');
}

function show() {
  for (const picture of pictures)
    for (const image of picture.querySelectorAll('img')) image.hidden = image !== imageOf(picture);
  for (const button of document.querySelectorAll('button[data-view]'))
    button.setAttribute('aria-pressed', button.dataset.view === view);
  if (!dialog.open) return;
  const picture = shown[current], large = dialog.querySelector('img');
  large.src = imageOf(picture).src;
  large.alt = imageOf(picture).alt;
  dialog.querySelector('b').textContent = picture.dataset.name;
  dialog.querySelector('span').textContent = picture.dataset.note;
  for (const button of dialog.querySelectorAll('[data-view]'))
    button.disabled = !picture.querySelector(`img[data-view=${button.dataset.view}]`);
}

function filter() {
  shown = pictures.filter(picture => !select.selectedIndex || picture.dataset.category === select.value);
  for (const picture of pictures) picture.hidden = !shown.includes(picture);
  for (const section of document.querySelectorAll('section'))
    section.hidden = !section.querySelector('.picture:not([hidden])');
  document.querySelector('[role=status]').textContent = `${shown.length} of ${pictures.length} pictures`;
}

function step(by) {
  current = (current + by + shown.length) % shown.length;
  show();
}

document.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.className === 'picture') {
    current = shown.indexOf(button);
    dialog.showModal();
    show();
  } else if (button.dataset.view) {
    view = button.dataset.view;
    show();
  } else if (button.dataset.step) step(Number(button.dataset.step));
  else dialog.close();
});
dialog.addEventListener('keydown', event => {
  const button = dialog.querySelectorAll('[data-view]')[event.key - 1];
  if (event.key === 'ArrowLeft') step(-1);
  else if (event.key === 'ArrowRight') step(1);
  else if (button && !button.disabled) button.click();
});
dialog.addEventListener('close', () => shown[current].focus());
if (select) {
  select.addEventListener('change', filter);
  filter();
}
show();
